"""Progress that suits its output, whole tables, and the run a user means."""

import io
import re
from pathlib import Path

import pytest

from saq_qat.cli import console
from saq_qat.cli.console import is_quiet, newest_run, progress, quietly, resolve_run, table
from saq_qat.errors import ArtifactError


def test_without_a_terminal_progress_is_one_line_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("train", total=3) as shown:
        shown.advance(note="loss 2.0")
        shown.advance(2, note="loss 1.5")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("train: 3/3 in ")
    assert lines[0].endswith(" s  loss 1.5")


def test_lines_that_stay_and_a_total_found_late(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("train") as shown:
        shown.advance(total=5)
        shown.say("epoch 1: top-1 90 %")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "epoch 1: top-1 90 %"
    assert lines[1].startswith("train: 1/5 in ")


def test_without_a_terminal_progress_prints_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "LINE_SECONDS", 0.0)
    with progress("read") as shown:
        shown.advance()
        shown.advance()
    lines = [line.split(" in ")[0] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["read: 1", "read: 2", "read: 2"]


def test_progress_ends_its_line_when_the_job_fails(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), progress("train") as shown:
        shown.advance()
        raise ZeroDivisionError
    assert capsys.readouterr().err.startswith("train: 1 in ")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        """What a person saw, one after the other."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue()).replace("\r", "\n").splitlines()


def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Stderr is a terminal of eighty columns from now on."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return terminal


def test_on_a_terminal_progress_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_a_terminal(monkeypatch)
    with progress("read") as shown:
        shown.advance(2, note="[loss] 1.5", total=3)
        shown.say("a line [that] stays")
    for part in ("read", "2/3", "[loss] 1.5", "a line [that] stays"):
        assert part in terminal.getvalue()


def test_a_note_that_is_too_long_is_cut_and_hides_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_a_terminal(monkeypatch)
    with progress("train", 123456, 12345) as shown:
        shown.advance(note="quantized 12/300 loss 1.234 12345 images/s and many other things to know")
    last = terminal.lines[-1]
    assert all(len(line) <= 80 for line in terminal.lines)
    assert last.startswith("train  12346/123456 0:00:0") and "quantized 12/300 loss 1.234" in last


def test_a_job_without_a_total_counts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_a_terminal(monkeypatch)
    with progress("verify") as shown:
        shown.advance(note="3/8 codes of 16 images")
    assert re.fullmatch(r"verify\s+0:00:0\d\s+3/8 codes of 16 images\s*", terminal.lines[-1])


def test_the_time_left_is_of_the_steps_this_process_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 5.0, 20.0, 20.0, 30.0])
    monkeypatch.setattr("saq_qat.cli.console.time.monotonic", lambda: next(clock))
    with progress("train", 1000, done=900) as shown:
        shown.advance()
        shown.advance(19)
        monkeypatch.undo()
        shown.advance(80)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "train: 920/1000 in 20.0 s, 80 s left"
    assert lines[-1].startswith("train: 1000/1000 in ") and "left" not in lines[-1]


def test_who_wants_it_quiet_sees_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = at_a_terminal(monkeypatch)
    with quietly(True), progress("train", 3) as shown:
        shown.advance(3, note="loss 1.5")
        shown.say("a line")
        assert is_quiet()
    assert terminal.getvalue() == "" and not is_quiet()


def test_a_table_outside_a_terminal_cuts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    long = "layer4.1.conv2." * 8
    table(("name", "bits"), [(long, "4"), ("fc", "8")], title="plan")
    assert long in capsys.readouterr().out


def test_a_table_outside_a_terminal_is_80_columns_wide_and_says_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = ("name", "state", "found", "elsewhere", "remedy")
    cells = ("layer [green]ok[/]", *("twelve words of no meaning " * 2,) * 2, "3", "all of it again " * 20)
    table(names, [cells, ("fc", "a", "b", "4", "c")], title="what was found")
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert "layer ok" in shown and shown.split().count("again") == 20
    assert all(name in shown.split() for name in names)


def make_run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "resolved.yaml").touch()
    return folder


def test_the_newest_run_is_the_last_to_start_of_any_recipe(tmp_path: Path) -> None:
    newest = make_run(tmp_path / "a" / "20261123-120001-00ff")
    make_run(tmp_path / "b" / "20261123-120000-ffff")
    (tmp_path / "b" / "20261123-130000-ffff").mkdir()  # half-made: no recipe in it
    make_run(tmp_path / "b" / "notes")
    assert newest_run(tmp_path) == newest


def test_a_run_is_named_by_its_folder_its_recipe_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    older = make_run(Path("runs/a/20261123-120000-0000"))
    newer = make_run(Path("runs/b/20261123-120001-0000"))
    moved = make_run(Path("elsewhere/kept"))
    assert resolve_run(None) == newer
    assert resolve_run(Path("runs/a")) == older
    assert resolve_run(older) == older
    assert resolve_run(moved) == moved


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (None, r"no run in runs/; train one with 'saq-qat train recipe\.yaml'"),
        ("nowhere", "nowhere: no such folder"),
        ("empty", r"empty is no run: it has no resolved\.yaml"),
    ],
)
def test_no_run_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str | None, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(ArtifactError, match=message):
        resolve_run(None if argument is None else Path(argument))


def test_what_a_job_has_found_goes_to_stdout_and_above_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress("train", 3) as shown:
        shown.tell("epoch 1: top-1 90 %")
    assert capsys.readouterr().out == "epoch 1: top-1 90 %\n"
    terminal = at_a_terminal(monkeypatch)
    with progress("train", 3) as shown:
        shown.tell("epoch 2: top-1 91 %")  # into a file
    assert capsys.readouterr().out == "epoch 2: top-1 91 %\n" and "epoch 2" not in terminal.getvalue()
    monkeypatch.setattr("sys.stdout", Terminal())
    with progress("train", 3) as shown:
        shown.tell("epoch 3: top-1 92 %")
    assert any(line.startswith("epoch 3: top-1 92 %") for line in terminal.lines)
