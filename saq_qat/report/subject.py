"""Which artifact a result is about: a figure stands only beside the checkpoint and bundle that gave it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from saq_qat.errors import ArtifactError
from saq_qat.train.choose import Standing, choose_checkpoint, standing_of
from saq_qat_runtime.bundle.result_files import short_digest

__all__ = ["SetAside", "about", "find_checkpoint"]


@dataclass(frozen=True)
class SetAside:
    """A file whose figures the report does not show.

    Attributes:
        file: below the run's folder.
        command: that makes it again.
        reason: what it is about instead, and what to do.
    """

    file: str
    command: str
    reason: str


class _Result(Protocol):
    """What every result file says of its subject."""

    @property
    def checkpoint_sha256(self) -> str: ...
    @property
    def bundle_sha256(self) -> str | None: ...


Result = TypeVar("Result", bound=_Result)


def about(
    result: Result | None,
    file: str,
    command: str,
    checkpoint: str | None,
    bundle: str | None,
    set_aside: list[SetAside],
) -> Result | None:
    """The result if it bears these digests; None if it is about something else, which is set aside.

    Args:
        file: below the run's folder. command: that makes it again.
        checkpoint, bundle: digests of what the report is about; None if there is none.
    """
    if result is None:
        return None
    if result.checkpoint_sha256 == checkpoint and result.bundle_sha256 == bundle:
        return result
    name = file.rpartition("/")[2]
    set_aside.append(
        SetAside(file, command, f"{name} is {_mismatch(result, checkpoint, bundle)}: run {command}")
    )
    return None


def _mismatch(result: _Result, checkpoint: str | None, bundle: str | None) -> str:
    theirs = short_digest(result.checkpoint_sha256)
    if result.bundle_sha256 is None:
        ours = "is not there" if checkpoint is None else f"is {short_digest(checkpoint)}"
        return f"about checkpoint {theirs}, and the checkpoint of this report {ours}"
    if bundle is None or checkpoint is None:
        return f"about bundle {short_digest(result.bundle_sha256)}, which is not there"
    if result.checkpoint_sha256 != checkpoint:
        return f"about checkpoint {theirs}, this bundle was exported from {short_digest(checkpoint)}"
    return f"about bundle {short_digest(result.bundle_sha256)}, this one is {short_digest(bundle)}"


def find_checkpoint(run: Path, exported: str | None, set_aside: list[SetAside]) -> Standing | None:
    """The checkpoint that the bundle was exported from, or without a bundle the one an export would take.

    Args:
        exported: its digest, by the bundle's manifest. A damaged checkpoint is set aside.
    """
    try:
        if exported is None:
            any_saved = any((run / "checkpoints").glob("*"))
            return choose_checkpoint(run).taken if any_saved else None
        found = (standing_of(run, "best"), standing_of(run, "last"))
    except ArtifactError as error:
        set_aside.append(SetAside("checkpoints", "saq-qat train --resume", str(error)))
        return None
    return next((each for each in found if each is not None and each.sha256 == exported), None)
