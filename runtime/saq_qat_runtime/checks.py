"""What arguments must be, and an array before an engine sees it."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saq_qat_runtime.bundle.records import TensorSpec
from saq_qat_runtime.errors import InputError

__all__ = ["check_batch", "check_flag", "check_logits", "check_path"]


def check_batch(
    batch: object, spec: TensorSpec, *, max_batch: int | None, finite: bool
) -> NDArray[np.float32]:
    """`batch` itself, once it is known to be a float32 array of the shape that `spec` gives.

    Any memory layout will do, and so will an empty batch. Nothing is converted: float64 would be rounded, a
    masked array would lose its mask. NaN and infinity are refused if `finite`: quantization would turn them
    into ordinary numbers. Raises InputError, also where the memory for that comparison is short: a broadcast
    array is larger than what it occupies.
    """
    if not isinstance(batch, np.ndarray) or isinstance(batch, np.ma.MaskedArray):
        fix = "Use numpy.asarray(x, numpy.float32), or predict() for images."
        raise InputError(f"Input {spec.name!r} must be a numpy array, got {type(batch).__name__}. {fix}")
    if batch.dtype != np.float32:
        fix = f"Convert it on purpose: x.astype(numpy.{spec.dtype})."
        raise InputError(f"Input {spec.name!r} must be {spec.dtype}, got {batch.dtype.str}. {fix}")
    _check_shape(batch.shape, spec, max_batch)
    unusable = _not_finite(batch, f"Input {spec.name!r}") if finite else 0
    if unusable:
        rule = f"Input {spec.name!r} must be finite; {unusable} of {batch.size} values are NaN or infinite"
        raise InputError(f"{rule}, which quantization would turn into ordinary codes. Mend the input.")
    return batch


def check_logits(logits: object, labels: int) -> NDArray[np.float32]:
    """`logits` themselves, once they are known to be one image's: a finite float32 array (labels,).

    Nothing is converted. Raises InputError.
    """
    fix = "Give one row of what run() gave: session.rank(session.run(batch)[0], 5)."
    if not isinstance(logits, np.ndarray) or isinstance(logits, np.ma.MaskedArray):
        raise InputError(f"logits must be a numpy array, got {type(logits).__name__}. {fix}")
    if logits.dtype != np.float32 or logits.shape != (labels,):
        found = f"{logits.dtype.str} {logits.shape}"
        raise InputError(f"logits must be float32 ({labels},), one for each label, got {found}. {fix}")
    unusable = _not_finite(logits, "logits")
    if unusable:
        rule = f"logits must be finite; {unusable} of {labels} are NaN or infinite"
        raise InputError(f"{rule}, which have no probability. Mend the input that gave them.")
    return logits


def _not_finite(array: NDArray[np.float32], name: str) -> int:
    """How many values are NaN or infinite."""
    try:
        return int(array.size - np.count_nonzero(np.isfinite(array)))
    except MemoryError as error:
        raise InputError(
            f"{name} must fit the memory, got {array.shape}: {array.nbytes:,} bytes once they are copied for "
            "the engine. Split the batch."
        ) from error


def _check_shape(shape: tuple[int, ...], spec: TensorSpec, max_batch: int | None) -> None:
    expected = f"({', '.join(map(str, spec.shape))})"
    if len(shape) != len(spec.shape) or shape[1:] != spec.shape[1:]:
        fix = "A single image needs a batch dimension: x[numpy.newaxis]." if shape == spec.shape[1:] else ""
        raise InputError(f"Input {spec.name!r} must have shape {expected}, got {shape}. {fix}".rstrip())
    if max_batch is not None and shape[0] > max_batch:
        raise InputError(f"A batch may hold {max_batch} inputs (max_batch), got {shape[0]}. Split it.")


def check_flag(name: str, value: object) -> None:
    """Raise InputError for anything but True and False: "no" would count as yes."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name} must be True or False, got {value!r}.")


def check_path(name: str, value: object) -> Path:
    """A path that was given as text or as a path; raises InputError for anything else."""
    try:
        given = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    except Exception as error:  # __fspath__ is the caller's, and may raise anything
        rule = f"{name} must be a path, got {type(value).__name__} whose __fspath__ raised"
        raise InputError(f"{rule} {type(error).__name__}: {error}. Give the path as text.") from error
    if not isinstance(given, str) or "\0" in given:
        shown = "one with a null character in it" if isinstance(given, str) else type(value).__name__
        raise InputError(f"{name} must be a path, got {shown}.")
    return Path(given)
