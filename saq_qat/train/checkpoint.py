"""Checkpoints: folders of safetensors and JSON with a SHA-256 of each file, replaced as a whole."""

import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from saq_qat.data.record import DataRecord, data_record_from_json, data_record_to_json
from saq_qat.errors import ArtifactError, DivergedError, SaqError
from saq_qat.quant.plan.records import NetworkRecords, records_from_json, records_to_json
from saq_qat.train.files import sync_folder, write_synced
from saq_qat.train.state_file import Form, Position, check_state, progress_at_start
from saq_qat.train.trained_numbers import not_finite, unwritable_record
from saq_qat_runtime.bundle.decode import parse_json, shown
from saq_qat_runtime.bundle.regular_file import read_regular
from saq_qat_runtime.errors import ModelError

__all__ = [
    "RECORDS_FILE",
    "Checkpoint",
    "Form",
    "FormatError",
    "Position",
    "check_format",
    "checkpoint_outline",
    "newest_checkpoint",
    "packed",
    "read_checkpoint",
    "set_aside",
    "write_checkpoint",
]

FORMAT = 4
_ALL_OF_QUANTIZED = 3
"""Formats from here on record all that was trained of a quantized network."""
RECORDS_FILE, COMPUTED_FILE = "records.json", "computed.safetensors"
"""Quantizers, layers and other numbers of a quantized network; what it computes from its parameters alone;
absent for one in full precision."""

_HASHES = "sha256.json"
_LARGEST_JSON = 1 << 28
"""Bytes of a file beside the tensors: records of a network of thousands of layers take a hundredth."""


class FormatError(ArtifactError):
    """A checkpoint of a format that this version does not read; it is not damaged, and must stay."""


@dataclass(frozen=True)
class Checkpoint:
    """A network and where its training stands.

    Attributes:
        form: which network the weights belong to.
        model: its parameters and buffers by name; the averaged ones where weights are averaged.
        training: optimizer and method tensors, and the weights behind an average; empty where training does
            not continue (``best``).
        progress: plain numbers of the epoch so far and of the best epoch.
        sha256: of its model.safetensors, by which results know it; empty before it is written.
        records: of its quantizers; None in full precision.
        data: what it was trained on; None in checkpoints of format 1 and 2.
        recipe: that it was trained with, resolved, as plain data; None in checkpoints of formats up to 3.
        computed: values of ``computed_values``; kept for the proof, and not read back.
        folder: where it was read; None before it was written.
    """

    position: Position
    form: Form
    world_size: int
    model: Mapping[str, Tensor]
    training: Mapping[str, Tensor] = field(default_factory=dict)
    progress: Mapping[str, Any] = field(default_factory=progress_at_start)
    sha256: str = ""
    records: NetworkRecords | None = None
    data: DataRecord | None = None
    recipe: Mapping[str, Any] | None = None
    computed: Mapping[str, Tensor] = field(default_factory=dict)
    folder: Path | None = None


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint ``folder``; the one before stays beside it as ``<folder>.previous``.

    A process that is killed at any moment leaves at least one of the two whole.

    Raises:
        DivergedError: a tensor or a record holds numbers that are not finite.
        SaqError: it cannot be written; the checkpoint before is untouched.
    """
    _require_finite(folder, checkpoint)
    partial, previous = _beside(folder, "partial"), _beside(folder, "previous")
    _require_no_links(folder, partial, previous)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _write_files(partial, checkpoint)
        if folder.exists():
            shutil.rmtree(previous, ignore_errors=True)
            folder.rename(previous)
        partial.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise SaqError(
            f"{folder}: the checkpoint cannot be written: {error.strerror or error}. "
            "The one before it is untouched; free some space and go on with --resume."
        ) from error


def _require_no_links(folder: Path, partial: Path, previous: Path) -> None:
    if folder.is_symlink():
        raise SaqError(
            f"{folder}: is a link, and a checkpoint is replaced as a folder, so none was written. Put the "
            "folder it leads to in its place and go on with --resume."
        )
    for place in (partial, previous):
        if place.is_symlink() or place.is_file():
            raise SaqError(
                f"{place}: is a {'link' if place.is_symlink() else 'file'}, and a checkpoint needs this name "
                "for a folder while it is replaced, so none was written; the one before is untouched. Move "
                "it elsewhere and go on with --resume."
            )


def _require_finite(folder: Path, checkpoint: Checkpoint) -> None:
    name = not_finite(checkpoint.model) or not_finite(checkpoint.training)
    wrong = f"{name} holds numbers that are not finite" if name else None
    if wrong is None and checkpoint.records is not None:
        wrong = unwritable_record(checkpoint.records)
    if wrong:
        raise DivergedError(
            f"{folder}: {wrong}, so no checkpoint was written; the one before is untouched. "
            "Lower the learning rate, or look for images of extreme values."
        )


def _write_files(folder: Path, checkpoint: Checkpoint) -> None:
    state = {
        "format": FORMAT,
        "form": checkpoint.form,
        "world_size": checkpoint.world_size,
        "position": asdict(checkpoint.position),
        "progress": dict(checkpoint.progress),
        "data": None if checkpoint.data is None else data_record_to_json(checkpoint.data),
        "recipe": None if checkpoint.recipe is None else dict(checkpoint.recipe),
    }
    files = {
        "model.safetensors": packed(checkpoint.model),
        "optimizer.safetensors": packed(checkpoint.training),
        "state.json": json.dumps(state, indent=2, allow_nan=False).encode(),
    }
    if checkpoint.records is not None:
        files[RECORDS_FILE] = json.dumps(
            records_to_json(checkpoint.records), indent=1, allow_nan=False
        ).encode()
    if checkpoint.computed:
        files[COMPUTED_FILE] = packed(checkpoint.computed)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    files[_HASHES] = json.dumps(hashes, indent=2).encode()
    for name, content in files.items():
        write_synced(folder / name, content)
    sync_folder(folder)


def packed(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as the content of a safetensors file, from any device; equal tensors give equal bytes.

    A tensor that has several names is stored under each.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    owners = {tensor.data_ptr(): name for name, tensor in plain.items()}
    plain = {name: t if owners[t.data_ptr()] == name else t.clone() for name, t in plain.items()}
    return safetensors.torch.save(plain)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint whose every file has the hash it was written with; tensors on the CPU.

    Raises:
        ArtifactError: it is missing or damaged (naming the file).
        FormatError: a newer version wrote it, or one that recorded less of a quantized network.
    """
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such checkpoint.")
    check_format(folder)
    hashes = _parse(folder, _HASHES, _read(folder, _HASHES))
    names = ["state.json", "model.safetensors", "optimizer.safetensors"]
    content = {
        name: _checked(folder, name, hashes)
        for name in (*names, *([RECORDS_FILE] if RECORDS_FILE in hashes else []))
    }
    state = _parse(folder, "state.json", content["state.json"])
    check_state(state, str(folder / "state.json"))
    checkpoint = replace(
        _outline(folder, state, hashes),
        model=_unpack(folder, "model.safetensors", content),
        training=_unpack(folder, "optimizer.safetensors", content),
    )
    if RECORDS_FILE not in content:
        return checkpoint
    records = _parse(folder, RECORDS_FILE, content[RECORDS_FILE])
    return replace(checkpoint, records=records_from_json(records, str(folder / RECORDS_FILE)))


def _outline(folder: Path, state: dict[str, Any], hashes: dict[str, Any]) -> Checkpoint:
    data = state.get("data")
    return Checkpoint(
        position=Position(**state["position"]),
        form=state["form"],
        world_size=state["world_size"],
        model={},
        progress=state["progress"],
        sha256=hashes["model.safetensors"],
        data=None if data is None else data_record_from_json(data, str(folder / "state.json")),
        recipe=state.get("recipe"),
        folder=folder,
    )


def checkpoint_outline(folder: Path) -> Checkpoint | None:
    """Where the checkpoint in ``folder`` stands, without its tensors, which are neither read nor checked.

    None if there is none, and none before it.

    Raises:
        ArtifactError: its state.json is missing or damaged. FormatError: another version wrote it.
    """
    found = next((each for each in (folder, _beside(folder, "previous")) if each.is_dir()), None)
    if found is None:
        return None
    check_format(found)
    hashes = _parse(found, _HASHES, _read(found, _HASHES))
    state = _parse(found, "state.json", _checked(found, "state.json", hashes))
    check_state(state, str(found / "state.json"))
    return _outline(found, state, hashes)


def check_format(folder: Path) -> None:
    """Refuse other formats before any hash is compared: another format may keep other files.

    Raises:
        FormatError: a newer version wrote it, or one that recorded less of a quantized network.
    """
    try:
        state = json.loads(read_regular(folder / "state.json", _LARGEST_JSON))
    except (OSError, ValueError, RecursionError):
        return  # damaged, which the hashes will name
    found = state.get("format") if isinstance(state, dict) else None
    if type(found) is not int or found == FORMAT:
        return
    if found > FORMAT:
        raise FormatError(
            f"{folder}: a checkpoint of format {shown(found)}; this saq-qat reads formats up to {FORMAT}. "
            "Use the version that wrote it."
        )
    if found < _ALL_OF_QUANTIZED and state.get("form") != "float":
        raise FormatError(
            f"{folder}: a quantized network in a checkpoint of format {shown(found)}, which does not record "
            "all that was trained (quantizers, classes, preprocessing), so no export of it could be proved. "
            "Train again, or export with the version that wrote it."
        )


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The checkpoint in ``folder``; with a warning the one before it if that is damaged; None without any.

    Raises:
        ArtifactError: neither is whole.
        FormatError: another version wrote one of them; that is no damage, and going on would overwrite it.
    """
    previous = _beside(folder, "previous")
    if not os.path.lexists(folder):
        # The process was killed between the two renames.
        return read_checkpoint(previous) if os.path.lexists(previous) else None
    try:
        return read_checkpoint(folder)
    except FormatError:
        raise
    except ArtifactError as error:
        if not os.path.lexists(previous):
            raise
        older = _the_one_before(previous, error)
        warnings.warn(
            f"{error} Going on from the checkpoint before it, at step {older.position.step}.", stacklevel=2
        )
        return older


def _the_one_before(previous: Path, newer: ArtifactError) -> Checkpoint:
    try:
        return read_checkpoint(previous)
    except FormatError:
        raise
    except ArtifactError as error:
        raise ArtifactError(
            f"{newer} Nor can the checkpoint before it be used: {error} Put a copy of one of them back, or "
            "start a new run."
        ) from error


def set_aside(folder: Path) -> None:
    """Give a damaged checkpoint another name: the next one would push out the whole one before it.

    Raises:
        SaqError: the folder cannot be renamed.
    """
    aside = _beside(folder, f"damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    try:
        folder.rename(aside)
    except OSError as error:
        raise SaqError(f"{folder}: cannot be renamed to {aside.name}: {error.strerror}.") from error


def _beside(folder: Path, suffix: str) -> Path:
    return folder.with_name(f"{folder.name}.{suffix}")


def _read(folder: Path, name: str) -> bytes:
    try:
        return read_regular(folder / name, _LARGEST_JSON if name.endswith(".json") else None)
    except OSError as error:
        raise ArtifactError(f"{folder / name}: cannot be read: {error.strerror}.") from error


def _checked(folder: Path, name: str, hashes: dict[str, Any]) -> bytes:
    content = _read(folder, name)
    if hashlib.sha256(content).hexdigest() != hashes.get(name):
        raise ArtifactError(f"{folder / name}: damaged; its SHA-256 is not the one in {_HASHES}.")
    return content


def _parse(folder: Path, name: str, content: bytes) -> dict[str, Any]:
    try:
        value = parse_json(content.decode(), str(folder / name), "Its checkpoint is damaged.")
    except (ModelError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{folder / name}: damaged; it is no JSON.") from error
    if not isinstance(value, dict):
        raise ArtifactError(f"{folder / name}: damaged; it is no JSON object.")
    return value


def _unpack(folder: Path, name: str, content: Mapping[str, bytes]) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(content[name])
    except SafetensorError as error:
        raise ArtifactError(f"{folder / name}: damaged; {error}.") from error
