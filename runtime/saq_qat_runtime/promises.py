"""What is promised of a bundle: is it proved, what goes in and out, what must it compute."""

import io
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saq_qat_runtime.backend import Backend
from saq_qat_runtime.bundle.decode import require
from saq_qat_runtime.bundle.files import read_verified
from saq_qat_runtime.bundle.manifest import FileRecord, Manifest
from saq_qat_runtime.errors import ModelError

__all__ = ["check_gate", "check_interface", "read_arrays", "read_golden", "read_golden_codes"]

_LARGEST_GOLDEN = 1 << 28
_NO_CODES = ("inputs", "logits")
# What zipfile, its decompressors and NumPy raise for damaged files.
_UNREADABLE = (
    EOFError,
    KeyError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


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
    arrays = read_arrays(folder, file, lambda name: name in _NO_CODES)
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
    codes = read_arrays(folder, file, lambda name: name not in _NO_CODES)
    listed = sorted({tensor.code_tensor for tensor in manifest.tensors})
    rule = f"{file.name} must hold the codes of the {len(listed)} tensors that the manifest lists"
    require(sorted(codes) == listed, f"{rule}, it holds {len(codes)}. Export again.")
    return codes


def read_arrays(folder: Path, file: FileRecord, wanted: Callable[[str], bool]) -> dict[str, NDArray[Any]]:
    """Arrays of an .npz file whose names are wanted; nothing is unpickled, no more unpacked than is allowed.

    Raises ModelError if the file is damaged.
    """
    content = read_verified(folder, file.name, file.sha256, file.bytes)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            listed = (name.removesuffix(".npy") for name in archive.namelist())
            names = [name for name in listed if wanted(name)]
            size = sum(archive.getinfo(f"{name}.npy").file_size for name in names)
            if size > _LARGEST_GOLDEN:
                raise ValueError(f"they unpack to {size} bytes, {_LARGEST_GOLDEN} are allowed")
            return {name: _array(archive, name) for name in names}
    except _UNREADABLE as error:
        raise ModelError(f"{file.name} has no readable arrays of samples: {error}. Export again.") from error


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """An array of an .npz file, whose size is within bounds."""
    member = archive.getinfo(f"{name}.npy")
    size = member.file_size
    stream = io.BytesIO(archive.read(member))
    version = np.lib.format.read_magic(stream)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(stream)
    if prod(shape) * dtype.itemsize > size:
        raise ValueError(f"'{name}' says that it is {shape}, and has {size} bytes")
    stream.seek(0)
    array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array
