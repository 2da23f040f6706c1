"""An interrupt is told as one, whatever the code it met makes of it."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.training.soak import cpu_seconds

COMMAND = "from saq_qat.cli.start import main; main()"


def _environment(*folders: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, folders), *sys.path])}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_an_import_turns_into_another_error_is_told_as_what_it_was(
    number: signal.Signals,
) -> None:
    """As numpy does, whose ImportError says that its C extension is broken."""
    program = (
        "import os, sys, saq_qat.recipe.json_schema as s\n"
        "from saq_qat.cli.main import main\n"
        "def broken():\n"
        f"    try: os.kill(os.getpid(), {int(number)})\n"
        "    except BaseException as error: raise ImportError('the C extension is broken') from error\n"
        "s.recipe_json_schema = broken\n"
        "sys.argv = ['saq-qat', 'schema']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 128 + number
    assert done.stderr == ("" if number == signal.SIGTERM else "interrupted\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_before_the_command_line_is_there_leaves_quietly(
    tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "typer.py").write_text(f"import os\nos.kill(os.getpid(), {int(number)})\n")
    command = [sys.executable, "-c", COMMAND, "schema"]
    environment = _environment(tmp_path)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (128 + number, "interrupted\n" * (number == signal.SIGINT))


@pytest.mark.slow  # each starts the command anew
@pytest.mark.timeout(3600)
def test_an_interrupt_at_any_moment_is_no_error(tmp_path: Path) -> None:
    moments = random.Random(0)
    recipe = Path(__file__).parents[3] / "configs" / "quickstart.yaml"
    for _ in range(int(os.environ.get("SOAK_KILLS", "5"))):
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "train", str(recipe)],
            cwd=tmp_path, env=_environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip  # one value a line is a page
        moment = moments.uniform(0.3, 8)
        while cpu_seconds(process.pid) < moment:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=600)
        assert process.returncode == 130, f"after {moment:.2f} s: {errors}"
        assert "internal error" not in errors and "Traceback" not in errors
        told = errors.splitlines()[-1]
        assert told == "interrupted" or "train --resume" in told, errors
        print(f"after {moment:.2f} s of CPU time: {told}")
