"""Whether runs whose recipes name the same images and teacher were trained on the same: files may change."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from saq_qat.analysis.study.arms import ResolvedArm
from saq_qat.errors import ArtifactError
from saq_qat.recipe.flat import flat
from saq_qat.recipe.schema import Recipe
from saq_qat_runtime.bundle.regular_file import read_regular
from saq_qat_runtime.bundle.result_files import short_digest

__all__ = ["Trained", "TrainedOn", "check_trained_on", "read_trained_on"]

_OF_NO_EFFECT = "workers"


@dataclass(frozen=True)
class TrainedOn:
    """SHA-256 of what a run was given, as its last checkpoint has them; None where that does not say.

    Attributes:
        images: labels, and names of files or pixels in memory. image_files: what the files hold.
        teacher: its weights.
    """

    images: str | None = None
    image_files: str | None = None
    teacher: str | None = None


@dataclass(frozen=True)
class Trained:
    """A run, by its place, and what it was trained on."""

    arm: str
    seed: int
    place: str
    on: TrainedOn


def read_trained_on(run: Path) -> TrainedOn:
    """What a run was trained on; nothing if it has no checkpoint.

    Raises:
        ArtifactError: the checkpoint's notes are damaged.
    """
    path = run / "checkpoints" / "last" / "state.json"
    if not path.is_file():
        return TrainedOn()
    try:
        progress = json.loads(read_regular(path))["progress"]
        found = (progress.get(key) for key in ("images", "image_files", "teacher"))
        return TrainedOn(*(None if value is None else str(value) for value in found))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is damaged: {error}. 'saq-qat study' says how to go on.") from error


def check_trained_on(arms: Mapping[str, ResolvedArm], runs: Sequence[Trained]) -> None:
    """Hold runs whose recipes name the same against each other: images by seed, a teacher altogether.

    Raises:
        ArtifactError: two were trained on others. Names both, and what to do.
    """
    seen: dict[tuple[str, str], tuple[Trained, str]] = {}
    for run in runs:
        for what, named, digest in _given(arms[run.arm].recipe, run):
            first, before = seen.setdefault((what, named), (run, digest))
            if before != digest:
                raise ArtifactError(
                    f"{first.place} was trained {what} {short_digest(before)} and {run.place} {what} "
                    f"{short_digest(digest)}, though their recipes name the same: the files changed in "
                    "between, so that arms would differ in what they were trained on. Put the files back, "
                    "delete the run of the other ones, and give the same command again; or give the study "
                    "another name."
                )


def _given(recipe: Recipe, run: Trained) -> Iterator[tuple[str, str, str]]:
    """What a run was given, in words, as its recipe names it, and its digest."""
    data = {key: value for key, value in flat(recipe.data.model_dump()).items() if key != _OF_NO_EFFECT}
    named = f"{run.seed} {_text(data)}"
    if run.on.images is not None:
        yield "on images", named, run.on.images
    if run.on.image_files is not None:
        yield "on files of images", named, run.on.image_files
    if run.on.teacher is not None and recipe.train.teacher is not None:
        yield "by a teacher", _text(recipe.train.teacher.model_dump()), run.on.teacher


def _text(section: Mapping[str, object]) -> str:
    return json.dumps(section, sort_keys=True, default=str)
