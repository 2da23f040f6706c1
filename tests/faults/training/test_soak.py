"""A whole recipe that is killed again and again ends with the weights of one that was left alone."""

import os
from pathlib import Path

import pytest

from tests.faults.soaking import soaked


@pytest.mark.slow  # `make soak` kills thirty times, this test five
@pytest.mark.timeout(3600)
def test_random_kills_over_a_whole_recipe_lose_nothing(tmp_path: Path) -> None:
    kills = os.environ.get("SOAK_KILLS", "5")
    assert "lost: nothing" in soaked("training.soak", str(tmp_path), "--kills", kills)
