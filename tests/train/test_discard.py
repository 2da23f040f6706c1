"""What is deleted is a run, a whole run, and nothing but a run."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from saq_qat.errors import ArtifactError, SaqError
from saq_qat.train.discard import check_deletable, delete_run
from saq_qat.train.files import is_locked, locked


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "20261130-120000-00ff"
    for name in ("checkpoints/last", "export", "report", ".export-1a2b3c"):
        (folder / name).mkdir(parents=True)
    for name in ("recipe.yaml", "resolved.yaml", "log.jsonl", "checkpoints/last/state.json"):
        (folder / name).write_text("x")
    (folder / ".log.csv.partial").touch()
    return folder


def test_a_run_goes_with_all_that_commands_wrote(run: Path) -> None:
    delete_run(run)
    assert not run.exists() and run.parent.is_dir()


def test_a_run_that_is_trained_stays(run: Path) -> None:
    with locked(run):
        assert is_locked(run)
        with pytest.raises(SaqError, match="being trained"):
            delete_run(run)
    assert (run / "checkpoints" / "last" / "state.json").is_file() and not is_locked(run)


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


@pytest.mark.parametrize("put", [os.mkfifo, os.mkdir, link_to_itself], ids=["pipe", "folder", "link"])
def test_a_lock_that_is_no_file_is_named_and_never_waited_for(
    run: Path, put: Callable[[Path], object]
) -> None:
    put(run / ".lock")
    assert not is_locked(run)
    with pytest.raises(SaqError, match=r"\.lock: must be a regular file.*Remove it"), locked(run):
        pass


@pytest.mark.parametrize("name", ["notes.txt", "second/manifest.json", ".git/config", "-report", ".hidden"])
def test_files_that_no_command_wrote_keep_the_run(run: Path, name: str) -> None:
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text("mine")
    with pytest.raises(ArtifactError, match="which no command wrote there"):
        delete_run(run)
    assert (run / name).read_text() == "mine" and (run / "resolved.yaml").is_file()


def test_what_is_no_run_stays(run: Path, tmp_path: Path) -> None:
    for folder in (tmp_path, run / "checkpoints", tmp_path / "nowhere"):
        with pytest.raises(ArtifactError, match="no run, and not deleted"):
            check_deletable(folder)
    link = tmp_path / "link"
    link.symlink_to(run)
    with pytest.raises(ArtifactError, match="a link, and not deleted"):
        delete_run(link)
    assert run.is_dir()


def test_what_a_link_in_a_run_leads_to_stays(run: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    (run / "bench").symlink_to(elsewhere)
    (run / "report" / "link").symlink_to(elsewhere)
    delete_run(run)
    assert not run.exists() and (elsewhere / "kept").is_file()


def test_a_deletion_that_was_cut_short_can_be_done_again(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("saq_qat.train.discard.shutil.rmtree", refuse)
    with pytest.raises(SaqError, match=r"cannot be deleted: Permission denied.*delete it again"):
        delete_run(run)
    monkeypatch.undo()
    delete_run(run)
    assert not run.exists()
