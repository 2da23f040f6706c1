"""Files that the runs of a study begin from: by content, because a name says nothing of it."""

import json
from collections.abc import Iterable
from pathlib import Path

from saq_qat.errors import ArtifactError
from saq_qat.recipe.schema import Recipe
from saq_qat.train.files import write_whole
from saq_qat_runtime.bundle.files import file_sha256
from saq_qat_runtime.bundle.result_files import short_digest

__all__ = ["INPUTS_FILE", "hold_inputs"]

INPUTS_FILE = "inputs.json"


def hold_inputs(folder: Path, recipes: Iterable[Recipe]) -> None:
    """Note the digest of every file of weights that recipes begin from; refuse one that has changed since.

    Raises:
        ArtifactError: a file has another content than when runs of the study began from it, or the notes are
            damaged. A file that is missing is left to the training, which names it.
    """
    path = folder / INPUTS_FILE
    known = _read(path)
    found = {name: file_sha256(Path(name)) for name in sorted(_files(recipes)) if Path(name).is_file()}
    for name, digest in found.items():
        before = known.get(name, digest)
        if before != digest:
            raise ArtifactError(
                f"{name}: runs of this study began from weights {short_digest(before)}, and the file holds "
                f"{short_digest(digest)} now, so that arms would differ in what they begin from. Put it "
                "back, or give the study another name."
            )
    if found.items() - known.items():
        write_whole(path, (json.dumps({**known, **found}, indent=2) + "\n").encode())


def _files(recipes: Iterable[Recipe]) -> set[str]:
    """Files of weights of networks and their teachers; a teacher that is a run is known by its checkpoint."""
    models = [
        model
        for recipe in recipes
        for model in (recipe.model, None if recipe.train.teacher is None else recipe.train.teacher.model)
        if model is not None
    ]
    return {model.pretrained for model in models if model.pretrained is not None}


def _read(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): str(digest) for name, digest in known.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"{path} is damaged: {error}. It holds the digests of the files that runs began from; give the "
            "study another name, or delete the file if they are still the same."
        ) from error
