"""Good and hostile clients at once, for a while."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.slow  # a minute here; `make soak` takes five
@pytest.mark.timeout(7200)
def test_good_clients_notice_nothing_of_hostile_ones(integer_bundle: Path) -> None:
    minutes = os.environ.get("SOAK_MINUTES", "1")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.serve.soak", str(integer_bundle), "--minutes", minutes],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip  # one value a line is a page
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing wrong, nothing left behind" in done.stdout
