"""Where a bundle goes: which folders may become one, and what stays of an older one's."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from saq_qat.errors import ArtifactError
from saq_qat_export.graph.targets import GRAPH_TARGETS
from saq_qat_runtime.bundle.expected import EXPECTED_FILE
from saq_qat_runtime.bundle.files import is_plain_name
from saq_qat_runtime.bundle.manifest import MANIFEST_FILE, FileRecord, Manifest
from saq_qat_runtime.bundle.origin import written_by_us
from saq_qat_runtime.errors import ModelError
from saq_qat_runtime.tensorrt.engine_record import ENGINE_FILES, EngineRecord, record_name

__all__ = ["GOLDEN_FILE", "MODEL_FILES", "PROBES_FILE", "check_destination", "keep_others", "swap"]

MODEL_FILES = {target: row.file for target, row in GRAPH_TARGETS.items()}
GOLDEN_FILE, PROBES_FILE = "golden.npz", "probes.npz"
_WRITTEN = frozenset({*MODEL_FILES.values(), GOLDEN_FILE, PROBES_FILE, EXPECTED_FILE, MANIFEST_FILE})
"""What export writes, whatever the targets."""
_FIELDS_OF_A_MANIFEST = frozenset({"models", "golden", "gate", "recipe"})


def check_destination(folder: Path) -> Path:
    """Only a new folder, an empty one or an older bundle may become the bundle.

    Returns:
        The folder where links lead, absolute.

    Raises:
        ArtifactError: something else is there, which a bundle would replace, or no folder can be there.
    """
    try:
        real = folder.resolve()
        _check_replaceable(real)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        why = error.strerror if isinstance(error, OSError) else "its links lead in a circle"
        raise ArtifactError(
            f"{folder}: no bundle can be written there: {why}. Name another folder."
        ) from error
    return real


def _check_replaceable(folder: Path) -> None:
    above = next((parent for parent in folder.parents if parent.exists()), folder)
    if not above.is_dir():
        raise ArtifactError(
            f"{folder}: no bundle can be written there: {above} is a file. Name another folder."
        )
    if _listed(folder) is not None:
        blocked = [name for name in sorted(_WRITTEN) if (folder / name).is_dir()]
        if blocked:
            raise ArtifactError(
                f"{folder / blocked[0]}: is a folder, and a bundle has a file of this name. Move it "
                "elsewhere, or name another folder."
            )
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtifactError(
            f"{folder}: a bundle replaces the folder it is written to, and this is no bundle "
            f"({_why_none(folder)}). Name a new folder, or remove this one first."
        )


def keep_others(folder: Path, fresh: Path, manifest: Manifest) -> None:
    """Put into ``fresh`` what export did not write of the older bundle, but for engines of another graph.

    Its old graphs are left behind, whatever targets they were for.
    """
    listed = _listed(folder) or frozenset()
    written = {path.name for path in fresh.iterdir()}
    _require_free(folder, written - listed)
    ours = listed | written
    stale = set(_stale_engines(folder, manifest.models.get("tensorrt")))
    others = folder.iterdir() if folder.is_dir() else ()
    for entry in (each for each in others if each.name not in ours | stale):
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, fresh / entry.name, symlinks=True, copy_function=_given_again)
        else:
            _given_again(str(entry), str(fresh / entry.name))


def _given_again(source: str, destination: str) -> str:
    """The same file under a second name, as the first will go: of any size and kind, a pipe too.

    Copied where the disk knows no second names.
    """
    try:
        os.link(source, destination, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, destination, follow_symlinks=False)
    return destination


def _why_none(folder: Path) -> str:
    manifest = folder / MANIFEST_FILE
    if manifest.exists() or manifest.is_symlink():
        return f"its {MANIFEST_FILE} is damaged, or none that saq-qat wrote"
    return f"it has no {MANIFEST_FILE}"


def _listed(folder: Path) -> frozenset[str] | None:
    """Names of the files of the bundle in ``folder``, its manifest among them; None if it is no bundle."""
    manifest = written_by_us(folder / MANIFEST_FILE)
    if manifest is None or not manifest.keys() >= _FIELDS_OF_A_MANIFEST:
        return None
    return frozenset({MANIFEST_FILE, *_names_of_files(list(manifest.values()))})


def _names_of_files(values: list[object]) -> Iterator[str]:
    """Of every record of a file in a manifest, whatever its schema version."""
    for value in values:
        if isinstance(value, dict):
            name = value.get("name")
            if isinstance(name, str) and "sha256" in value and is_plain_name(name):
                yield name
            yield from _names_of_files(list(value.values()))


def _require_free(folder: Path, names: set[str]) -> None:
    """Files that the older bundle does not list are the user's, whatever they are called."""
    taken = next((name for name in sorted(names) if os.path.lexists(folder / name)), None)
    if taken is not None:
        raise ArtifactError(
            f"{folder / taken}: the bundle needs this name, and the {MANIFEST_FILE} there does not list the "
            "file, so it is yours. Move it elsewhere, or name another folder."
        )


def _stale_engines(folder: Path, source: FileRecord | None) -> Iterator[str]:
    """Engines in ``folder`` that were built from another graph, and their records.

    An engine without a record of ours beside it may be the user's own.
    """
    for engine in ENGINE_FILES.values():
        if written_by_us(folder / record_name(engine)) is None:
            continue
        try:
            built_from = EngineRecord.load(folder, engine).source.sha256
        except ModelError:
            built_from = None  # damaged, or of another version: it is built again
        if source is None or built_from != source.sha256:
            yield from (engine, record_name(engine))


def swap(fresh: Path, folder: Path, old: Path) -> None:
    """Put ``fresh`` in the place of ``folder``; if that fails, what was there comes back."""
    if not folder.exists():
        fresh.rename(folder)
        return
    try:
        folder.rename(old)
        fresh.rename(folder)
    except BaseException:  # passed on; a signal between the two would leave nothing in its place
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
