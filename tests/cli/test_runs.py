"""runs from the command line."""

import io
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.report.networks import trained_run

ROOT = Path(__file__).parents[2]
SECTION = (
    (ROOT / "docs" / "studies.md").read_text("utf-8").split("## Keep order among runs\n")[1].split("\n## ")[0]
)
COMMANDS = re.findall(r"^saq-qat (.*?) *#", SECTION, re.MULTILINE)

SaqQat = Callable[..., int]
Captured = pytest.CaptureFixture[str]


class Terminal(io.StringIO):
    """A person's answers."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_run(tmp_path_factory.mktemp("trained") / "tiny")


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(trained, Path("runs", "tiny", "20261130-120000-00ff"))


def test_runs_are_listed_shown_and_compared(saq_qat: SaqQat, run: Path, capsys: Captured) -> None:
    other = shutil.copytree(run, run.with_name("20261130-120001-00ff"))
    assert saq_qat("runs") == 0
    shown = capsys.readouterr().out
    assert run.name in shown and other.name in shown and "finished" in shown and "2 runs" in shown
    assert saq_qat("runs", "show") == 0
    assert capsys.readouterr().out.startswith(f"{other}\n  state       finished, at step 8")
    assert saq_qat("runs", "compare", str(run), str(other)) == 0
    assert "Recipe: no difference" in capsys.readouterr().out
    assert saq_qat("runs", "compare", str(run)) == 2


def test_json_is_one_document(saq_qat: SaqQat, run: Path, capsys: Captured) -> None:
    for arguments, key in (
        ((), "runs"),
        (("show",), "run"),
        (("compare", str(run), str(run)), "comparison"),
        (("delete", str(run), "--yes"), "deleted"),
    ):
        assert saq_qat("runs", *arguments, "--json") == 0
        assert key in json.loads(capsys.readouterr().out)
    assert saq_qat("runs", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"schema_version": 1, "runs": []}


def test_nothing_is_deleted_without_a_yes(
    saq_qat: SaqQat, run: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert saq_qat("runs", "delete", str(run)) == 2
    assert "give --yes" in capsys.readouterr().err and run.is_dir()
    for answer, code in (("n", 1), ("y", 0)):
        monkeypatch.setattr("sys.stdin", Terminal(f"{answer}\n"))
        assert saq_qat("runs", "delete", str(run)) == code
        assert run.name in capsys.readouterr().err
        assert run.is_dir() == (answer == "n")


def test_one_folder_that_must_stay_keeps_all(saq_qat: SaqQat, run: Path, capsys: Captured) -> None:
    other = shutil.copytree(run, run.with_name("20261130-120001-00ff"))
    (other / "notes.txt").touch()
    assert saq_qat("runs", "delete", str(run), str(other), "--yes") == 3
    assert "notes.txt" in capsys.readouterr().err
    assert run.is_dir() and other.is_dir()
    assert saq_qat("runs", "delete", "runs/tiny", "--yes") == 3
    assert run.is_dir() and other.is_dir()


def test_without_runs_there_is_nothing_to_list(
    saq_qat: SaqQat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    assert saq_qat("runs") == 0
    assert capsys.readouterr().out.startswith("no run in runs/")


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_readme_run_as_they_stand_there(saq_qat: SaqQat, run: Path, command: str) -> None:
    arguments = [str(run) if word == "RUN" else word for word in shlex.split(command)]
    if "delete" in arguments:
        assert saq_qat(*arguments) == 2  # there is nobody to answer its question
        arguments.append("--yes")
    assert saq_qat(*arguments) == 0


def test_every_command_of_the_section_is_tried() -> None:
    assert len(COMMANDS) == SECTION.count("\nsaq-qat ") == 5
