"""Samples that export recorded: images or codes that are given, and what each tensor must become of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saq_qat_runtime.bundle.decode import require
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.errors import ModelError
from saq_qat_runtime.promises import read_arrays

__all__ = ["Answers", "Samples", "from_arrays", "read_probes", "to_arrays"]

_INPUTS, _GIVEN, _CODES, _FLOATS = "inputs", "given/", "codes/", "floats/"


@dataclass(frozen=True)
class Answers:
    """What a model computes from given codes.

    codes: uint8 or int8 by tensor. floats: float32 by tensor, of what integer kernels write; as recorded, the
    first rows alone: (rows, channels).
    """

    codes: dict[str, NDArray[Any]]
    floats: dict[str, NDArray[np.float32]]

    @property
    def size(self) -> int:
        """How many codes and floats."""
        return sum(array.size for array in (*self.codes.values(), *self.floats.values()))


@dataclass(frozen=True)
class Samples:
    """inputs: float32 images (N, channels, height, width). given: codes by tensor, which what follows reads.

    answers: what is due. Tensors may have other numbers of samples than the images.
    """

    inputs: NDArray[np.float32]
    given: dict[str, NDArray[Any]]
    answers: Answers


def to_arrays(samples: Samples) -> dict[str, NDArray[Any]]:
    """By the names that `read_probes` knows, sorted."""
    answers = samples.answers
    listed = [(_GIVEN, samples.given), (_CODES, answers.codes), (_FLOATS, answers.floats)]
    named = {f"{start}{name}": array for start, arrays in listed for name, array in arrays.items()}
    return {_INPUTS: samples.inputs, **dict(sorted(named.items()))}


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Samples:
    """What `to_arrays` gave; raises ModelError if there are no images."""
    require(_INPUTS in arrays, "Samples of codes need images beside them. Export the bundle again.")
    given, codes, floats = (
        {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
        for start in (_GIVEN, _CODES, _FLOATS)
    )
    return Samples(arrays[_INPUTS], given, Answers(codes, floats))


def read_probes(folder: Path, manifest: Manifest) -> Samples:
    """The probes of a bundle that has some.

    Raises ModelError if the file is damaged, or holds codes of other tensors than the manifest lists.
    """
    if manifest.probes is None:
        raise ModelError(f"{folder} has no probes. Export the bundle again.")
    file = manifest.probes.file
    arrays = read_arrays(folder, file, lambda _: True)
    samples = from_arrays(arrays)
    listed = {tensor.code_tensor: tensor.dtype for tensor in manifest.tensors}
    for what in (samples.given, samples.answers.codes):
        found = {name: str(array.dtype) for name, array in what.items()}
        rule = f"{file.name} must hold codes of the {len(listed)} tensors that the manifest lists"
        require(found == listed, f"{rule}, it holds {len(found)}. Export again.")
    spec = manifest.inputs[0]
    legal = samples.inputs.dtype == np.float32 and samples.inputs.shape[1:] == spec.shape[1:]
    require(legal, f"{file.name} has no images {list(spec.shape)} of float32. Export again.")
    require(
        all(array.ndim > 0 and len(array) > 0 for array in arrays.values()),
        f"{file.name} holds an array without samples. Export again.",
    )
    require(
        all(array.dtype == np.float32 for array in samples.answers.floats.values()),
        f"{file.name} holds floats that are no float32. Export again.",
    )
    return samples
