"""Deleting runs: only what a training made, and nothing that is at work or holds something else."""

import shutil
from pathlib import Path

from saq_qat.errors import ArtifactError, SaqError
from saq_qat.train.files import LOCK_FILE, is_locked, locked
from saq_qat.train.folder import RESOLVED

__all__ = ["check_deletable", "delete_run"]

_WRITTEN = frozenset(
    {
        *(
            "recipe.yaml",
            RESOLVED,
            "overrides.json",
            "env.json",
            "log.jsonl",
            "log.csv",
            "float.onnx",
            LOCK_FILE,
        ),
        *("checkpoints", "export", "report", "bench", "analysis", "tensorboard"),
    }
)
"""What the commands write into a run's folder."""


def check_deletable(run: Path) -> None:
    """Refuse whatever is not the folder of a run that nobody trains, holding only what commands wrote.

    Raises:
        ArtifactError: it is no run, a link to one, or holds something else.
        SaqError: it is being trained.
    """
    if run.is_symlink():
        raise ArtifactError(f"{run}: a link, and not deleted; name the folder {run.resolve()} itself.")
    if not (run / RESOLVED).is_file():
        raise ArtifactError(
            f"{run}: no run, and not deleted; it has no {RESOLVED}. Name the folder of one run, as saq-qat "
            "runs lists it."
        )
    others = sorted(entry.name for entry in run.iterdir() if not _is_written(entry.name))
    if others:
        raise ArtifactError(
            f"{run}: holds {', '.join(others)}, which no command wrote there, and is not deleted. Move that "
            "elsewhere first."
        )
    if is_locked(run):
        raise SaqError(f"{run}: is being trained, and not deleted. Stop the training first (SIGTERM).")


def _is_written(name: str) -> bool:
    """Also what a killed command left: ``.report.partial`` and ``.export-1a2b3c``."""
    own = name.removeprefix(".").removesuffix(".partial").partition("-")[0]
    return name in _WRITTEN or (name.startswith(".") and own in _WRITTEN)


def delete_run(run: Path) -> None:
    """Delete the folder of a run, which no training can take up meanwhile.

    Raises:
        ArtifactError, SaqError: as ``check_deletable``; or it cannot be deleted.
    """
    check_deletable(run)
    try:
        with locked(run):
            # What makes it a run goes last: a deletion that is cut short can be done again.
            for entry in (each for each in run.iterdir() if each.name != RESOLVED):
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            shutil.rmtree(run)
    except OSError as error:
        raise SaqError(
            f"{error.filename or run}: cannot be deleted: {error.strerror}. Some of {run} may be "
            "gone already; check its permissions, and delete it again."
        ) from error
