"""Whether runs whose recipes name the same images were trained on the same: a folder's content may change."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from saq_qat.analysis.study.arms import ResolvedArm
from saq_qat.analysis.study.quantities import RunResult
from saq_qat.errors import ArtifactError
from saq_qat.recipe.flat import flat
from saq_qat.recipe.schema import Recipe
from saq_qat_runtime.bundle.regular_file import read_regular
from saq_qat_runtime.bundle.result_files import short_digest

__all__ = ["check_same_images", "read_images"]

_OF_NO_EFFECT = "workers"


def read_images(run: Path) -> str | None:
    """SHA-256 of the images of a run, as its last checkpoint has it; None where it has none.

    Raises:
        ArtifactError: the checkpoint's notes are damaged.
    """
    path = run / "checkpoints" / "last" / "state.json"
    if not path.is_file():
        return None
    try:
        found = json.loads(read_regular(path))["progress"].get("images")
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{path} is damaged: {error}. 'saq-qat study' says how to go on.") from error
    return None if found is None else str(found)


def check_same_images(arms: Mapping[str, ResolvedArm], runs: Sequence[RunResult]) -> None:
    """Hold runs of one seed and one ``data`` section against each other.

    Raises:
        ArtifactError: two were trained on other images. Names both, and what to do.
    """
    seen: dict[tuple[int, str], RunResult] = {}
    for run in runs:
        if run.images is None:
            continue
        first = seen.setdefault((run.seed, _data(arms[run.arm].recipe)), run)
        if first.images != run.images:
            raise ArtifactError(
                f"{first.run} was trained on images {short_digest(first.images or '')} and {run.run} on "
                f"{short_digest(run.images)}, though their recipes name the same: the files changed in "
                "between, so that arms would differ in what they were trained on. Put the files back, delete "
                "the run of the other ones, and give the same command again; or give the study another name."
            )


def _data(recipe: Recipe) -> str:
    named = {key: value for key, value in flat(recipe.data.model_dump()).items() if key != _OF_NO_EFFECT}
    return json.dumps(named, sort_keys=True, default=str)
