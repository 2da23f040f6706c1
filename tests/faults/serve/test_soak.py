"""Good and hostile clients at once, for a while."""

import os
from pathlib import Path

import pytest

from tests.faults.soaking import soaked


@pytest.mark.slow  # a minute here; `make soak` takes ten
@pytest.mark.timeout(7200)
def test_good_clients_notice_nothing_of_hostile_ones(integer_bundle: Path) -> None:
    minutes = os.environ.get("SOAK_MINUTES", "1")
    assert "nothing wrong, nothing left behind" in soaked(
        "serve.soak", str(integer_bundle), "--minutes", minutes
    )
