"""runtime/SERVING.md: every block runs, every option it names exists, and none is left out."""

import argparse
import contextlib
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from saq_qat_runtime.serve.command import add_arguments
from saq_qat_runtime.serve.web.metrics import ServeMetrics
from saq_qat_runtime.serve.web.serving import Serving
from tests.runtime.serve.conftest import write_bundle

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "runtime" / "SERVING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()]
SERVE = "saq-qat-runtime serve"
MAIN = "from saq_qat_runtime.cli.main import main; main()"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundle and the picture that the text speaks of."""
    folder = tmp_path_factory.mktemp("serving")
    write_bundle(folder / "export")
    manifest = folder / "export" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"name": "tiny"', '"name": "quickstart"'))
    Image.new("RGB", (8, 8), (200, 30, 60)).save(folder / "picture.png")
    return folder


def environment() -> dict[str, str]:
    python = Path(sys.executable).parent
    paths = os.pathsep.join([str(ROOT / "runtime"), *filter(None, sys.path)])
    return {**os.environ, "PYTHONPATH": paths, "PATH": f"{python}{os.pathsep}{os.environ['PATH']}"}


@contextlib.contextmanager
def serving(command: str, folder: Path) -> Iterator[int]:
    """Run a line of the text that starts a server, on a port that is free."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    line = command.removeprefix(SERVE).replace("--port 8000", f"--port {port}")
    run = [sys.executable, "-c", MAIN, "serve", *shlex.split(line)]
    process = subprocess.Popen(run, cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert any(said.startswith("ready on") for said in process.stderr)
        yield port
    finally:
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0


def run_line(command: str, folder: Path) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip  # one value a line is a page
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_server_starts_and_every_line_and_block_gets_its_answer(place: Path) -> None:
    first, *others = [line for line in COMMANDS if line.startswith(SERVE)]
    curls = [line.replace("curl -s", "curl -sS --fail-with-body") for line in COMMANDS if "curl" in line]
    assert len(curls) == 6
    with serving(first, place) as port:
        answers = [run_line(line.replace("8000", str(port)), place) for line in curls]
        (block,) = [block for kind, block in BLOCKS if kind == "python"]
        subprocess.run(
            [sys.executable, "-c", block.replace("8000", str(port))],
            env=environment(),
            check=True,
            timeout=60,
        )
    assert [answer.count('"label"') for answer in answers[1:4]] == [5, 2, 1]
    for line in others:
        with serving(line, place):
            pass


def test_the_load_test_runs(place: Path) -> None:
    (line,) = [line for line in COMMANDS if "load_test" in line]
    assert "| 0 ms | 4 | 200 |" in run_line(line, place)


def test_no_command_of_the_text_was_left_out() -> None:
    known = (SERVE, "curl ", "python -m saq_qat_runtime.serve.load_test")
    assert [line for line in COMMANDS if not line.startswith(known)] == []


def test_every_option_of_the_text_exists_and_bounds_have_the_defaults_it_gives() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = {option: action for action in parser._actions for option in action.option_strings}
    named = set(re.findall(r"(--[a-z][a-z-]+)", TEXT)) - {
        "--data-binary", "--requests", "--clients", "--delays-ms",
    }  # fmt: skip  # one value a line is a page
    assert named <= set(options)
    rows = re.findall(r"^\| (`--.*?`) \| (.*?) \|", TEXT, re.MULTILINE)
    assert len(rows) == 6
    for names, defaults in rows:
        told = [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?=, |$| s)", defaults)]
        assert told == [options[name].default for name in re.findall(r"--[a-z-]+", names)], names


def test_every_metric_is_named() -> None:
    metrics = ServeMetrics()
    families = {family.name: family.type for family in metrics.registry.collect()}
    assert len(families) > 15
    for name, kind in families.items():
        told = f"`{name}_total" if kind == "counter" else f"`{name}"
        assert told in TEXT, name


def test_the_extra_of_the_text_holds_what_the_server_imports() -> None:
    assert Serving.__module__.startswith("saq_qat_runtime.serve.web")
    project = (ROOT / "runtime" / "pyproject.toml").read_text(encoding="utf-8")
    (extra,) = re.findall(r"^serve = \[(.*?)^\]", project, re.MULTILINE | re.DOTALL)
    for package in ("fastapi", "uvicorn", "prometheus-client", "python-multipart"):
        assert package in extra
