"""What is promised of a bundle: is it proved, what goes in and out, what must it compute."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saq_qat_runtime.backend import Backend
from saq_qat_runtime.bundle.decode import require
from saq_qat_runtime.bundle.files import read_verified
from saq_qat_runtime.bundle.manifest import FileRecord, Manifest
from saq_qat_runtime.errors import ModelError

__all__ = ["check_gate", "check_interface", "read_golden", "read_golden_codes"]

_LARGEST_GOLDEN = 1 << 28
_NO_CODES = ("inputs", "logits")
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, MemoryError, NotImplementedError, zipfile.BadZipFile)


def check_gate(folder: Path, manifest: Manifest, allow_failed: bool) -> None:
    """Raise ModelError for a bundle whose proof failed, unless `allow_failed`."""
    failed = (
        ", ".join(comparison.name for comparison in manifest.gate.comparisons if not comparison.passed)
        or "no comparison was run"
    )
    rule = f"{folder} failed the proof that its integers are the trained ones ({failed})"
    fix = "Mend it and export again, or load it on purpose with allow_failed_gate=True."
    require(manifest.gate.passed or allow_failed, f"{rule}. {fix}")


def check_interface(manifest: Manifest, backend: Backend) -> None:
    """Raise ModelError unless the model has the inputs and outputs that the manifest promises."""
    found, promised = tuple(backend.inputs), manifest.inputs
    require(found == promised, f"The model takes {found}, the manifest promises {promised}. Export again.")
    names = [output.name for output in backend.outputs]
    missing = [output.name for output in manifest.outputs if output.name not in names]
    require(not missing, f"The model gives {names}, the manifest promises {missing} too. Export again.")
    require(len(promised) == 1, f"This runtime runs models with one input, this one has {len(promised)}.")


def read_golden(folder: Path, manifest: Manifest) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Golden inputs (N, channels, height, width) and logits (N, labels); raises ModelError without them."""
    file = manifest.golden.file
    arrays = _golden_arrays(folder, file, lambda name: name in _NO_CODES)
    missing = [name for name in _NO_CODES if name not in arrays]
    require(not missing, f"{file.name} has no readable 'inputs' and 'logits'. Export again.")
    inputs, logits = (arrays[name] for name in _NO_CODES)
    count = len(inputs) if inputs.ndim else 0
    shapes = [(count, *manifest.inputs[0].shape[1:]), (count, len(manifest.labels))]
    legal = (
        inputs.dtype == logits.dtype == np.float32 and count > 0 and [inputs.shape, logits.shape] == shapes
    )
    found = f"{inputs.dtype} inputs {inputs.shape} and {logits.dtype} logits {logits.shape}"
    require(legal, f"{file.name} holds {found}, which do not fit this model. Export again.")
    return inputs, logits


def read_golden_codes(folder: Path, manifest: Manifest) -> dict[str, NDArray[Any]]:
    """Codes (uint8 or int8) of the golden inputs by the ONNX tensor that holds them.

    Raises ModelError if the file is damaged, or holds other tensors than the manifest lists.
    """
    file = manifest.golden.file
    codes = _golden_arrays(folder, file, lambda name: name not in _NO_CODES)
    listed = sorted({tensor.code_tensor for tensor in manifest.tensors})
    rule = f"{file.name} must hold the codes of the {len(listed)} tensors that the manifest lists"
    require(sorted(codes) == listed, f"{rule}, it holds {len(codes)}. Export again.")
    return codes


def _golden_arrays(folder: Path, file: FileRecord, wanted: Callable[[str], bool]) -> dict[str, NDArray[Any]]:
    """The arrays whose names are wanted; nothing is unpickled, and no more is unpacked than is allowed."""
    content = read_verified(folder, file.name, file.sha256, file.bytes)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(member.file_size for member in archive.infolist())
            require(
                size <= _LARGEST_GOLDEN,
                f"{file.name} unpacks to {size} bytes, {_LARGEST_GOLDEN} are allowed.",
            )
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files if wanted(name)}
    except _UNREADABLE as error:
        raise ModelError(
            f"{file.name} has no readable 'inputs' and 'logits': {error}. Export again."
        ) from error
