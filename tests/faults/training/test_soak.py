"""A whole recipe that is killed again and again ends with the weights of one that was left alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow  # `make soak` kills thirty times, this test five
@pytest.mark.timeout(3600)
def test_random_kills_over_a_whole_recipe_lose_nothing(tmp_path: Path) -> None:
    kills = os.environ.get("SOAK_KILLS", "5")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.training.soak", str(tmp_path), "--kills", kills],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip  # one value a line is a page
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lost: nothing" in done.stdout
