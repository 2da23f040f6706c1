"""Codes of every quantized tensor as ONNX Runtime computes them here, beside those that export recorded.

Each tensor is computed from recorded codes, so that a difference is counted where it arises.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from saq_qat_runtime.bundle.files import read_verified
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.bundle.onnx_file import parse_graph
from saq_qat_runtime.bundle.onnx_given import GivenCodes, own_name, with_given_codes
from saq_qat_runtime.bundle.onnx_limits import refuse_unsafe
from saq_qat_runtime.bundle.records import TensorRecord
from saq_qat_runtime.bundle.stated_scales import check_scales
from saq_qat_runtime.errors import InputError, RuntimeFault
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend
from saq_qat_runtime.promises import read_golden, read_golden_codes
from saq_qat_runtime.recorded import Answers, Samples, read_probes

__all__ = ["CodeComparison", "CodeEngine", "compare_answers", "compare_codes"]

_AT_TIES = 1e-5
"""Of the codes behind float operations and sums: how many another CPU may round otherwise, by one step."""

_IN_FLOATS = 2.0**-22
"""Of a float that an integer kernel writes: one multiplication, so half a unit of the last place."""

_DAMAGED = "The bundle is damaged, or this engine computes otherwise: copy the bundle or export it again."


@dataclass(frozen=True)
class _Difference:
    """A tensor that is not as recorded. first: where, what is due and what was computed, in words."""

    tensor: str
    count: int
    largest_step: float
    first: str
    is_tie: bool = False


@dataclass(frozen=True)
class CodeComparison:
    """Codes of golden images and probes: how many were compared, and what differs by more than it may.

    differing: how many, of each tensor that differs, in the order of the graph; mismatches: of all of them.
    at_ties: codes that a tie of floats turned by one step, as few as it may.
    first: where the first tensor differs, what is due and what was computed, in words.
    """

    tensors: int
    compared: int
    mismatches: int
    differing: dict[str, int]
    at_ties: int = 0
    first: str = ""

    @property
    def failure(self) -> str:
        """What differs first, in words, with its remedy; empty if nothing does."""
        if not self.differing:
            return ""
        name, count = next(iter(self.differing.items()))
        others = f", and codes of {len(self.differing) - 1} other tensors" if len(self.differing) > 1 else ""
        rule = f"{count:,} codes of {name} differ from those that export recorded{others}"
        return f"{rule}: {self.first}. {_DAMAGED}"


class CodeEngine:
    """A model on ONNX Runtime whose codes are given, and read back; a context, which releases its memory.

    content: the model's bytes. samples: for the shapes of codes, and names of the floats that are read.
    exact_pairs: as of `OnnxRuntimeBackend`. Raises ModelError for a model that is not to be loaded, or does
    not write these tensors.
    """

    def __init__(
        self, content: bytes, samples: Samples, *, exact_pairs: bool = False, threads: int | None = None
    ) -> None:
        refuse_unsafe(content)
        given = {name: GivenCodes(str(codes.dtype), codes.shape[1:]) for name, codes in samples.given.items()}
        cut = with_given_codes(content, given, tuple(samples.answers.floats))
        self._engine = OnnxRuntimeBackend(cut, threads=threads, exact_pairs=exact_pairs, any_operators=True)

    def run(self, image: str, samples: Samples) -> Answers:
        """What the model computes. image: name of its input; samples: with the tensors of this engine.

        Raises RuntimeFault if the engine fails or refuses the shapes, which those of the model contradict.
        """
        try:
            found = self._engine.run({image: samples.inputs, **samples.given})
        except InputError as error:
            raise RuntimeFault(f"{error} {_DAMAGED}") from error
        return Answers(
            {name: found[own_name(name)] for name in samples.given},
            {name: found[name] for name in samples.answers.floats},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.close()


def compare_codes(folder: Path, manifest: Manifest, threads: int | None = None) -> CodeComparison:
    """Every code of every quantized tensor beside those of golden images and probes, on ONNX Runtime.

    The scales of these tensors in the file are compared with those that the manifest states too.

    Raises:
        ModelError: the bundle has no model for it, or is damaged. BackendUnavailable: onnxruntime is missing.
        RuntimeFault: it failed.
    """
    model, image = manifest.models["onnxruntime"], manifest.inputs[0].name
    images, _ = read_golden(folder, manifest)
    codes = read_golden_codes(folder, manifest)
    samples = [Samples(images, codes, Answers(codes, {}))]
    if manifest.probes is not None:
        samples.append(read_probes(folder, manifest))
    content = read_verified(folder, model.name, model.sha256, model.bytes)
    check_scales(parse_graph(content), manifest.tensors)
    exact_pairs = bool(manifest.cpu.over_pair_bound)
    with CodeEngine(content, samples[-1], exact_pairs=exact_pairs, threads=threads) as engine:
        pairs = [(given.answers, engine.run(image, given)) for given in samples]
    return compare_answers(manifest.tensors, pairs)


def compare_answers(
    tensors: Sequence[TensorRecord], pairs: Sequence[tuple[Answers, Answers]]
) -> CodeComparison:
    """Pairs of what is due and what was found, by the one rule for codes.

    What one rounding computes may not differ at all. Behind float operations and sums, where CPUs may round
    ties otherwise, a code in 100,000 may, at least one, by one step.
    """
    found = [difference for due, seen in pairs for difference in _differences(tensors, due, seen)]
    wrong = [difference for difference in found if not difference.is_tie]
    order = [record.code_tensor for record in tensors]
    wrong.sort(key=lambda d: order.index(d.tensor) if d.tensor in order else len(order))
    differing: dict[str, int] = {}
    for difference in wrong:
        differing[difference.tensor] = differing.get(difference.tensor, 0) + difference.count
    return CodeComparison(
        len(tensors),
        sum(due.size for due, _ in pairs),
        sum(differing.values()),
        differing,
        sum(difference.count for difference in found if difference.is_tie),
        wrong[0].first if wrong else "",
    )


def _differences(tensors: Sequence[TensorRecord], due: Answers, found: Answers) -> Iterator[_Difference]:
    for record in tensors:
        name = record.code_tensor
        difference = _difference(name, due.codes[name], found.codes[name])
        if difference is not None:
            few = difference.count <= max(1, int(_AT_TIES * due.codes[name].size))
            yield replace(difference, is_tie=record.ties and few and difference.largest_step <= 1)
    for name, floats in due.floats.items():
        difference = _difference(name, floats, _head(found.floats[name], floats), _IN_FLOATS)
        if difference is not None:
            yield difference


def _head(found: NDArray[Any], due: NDArray[Any]) -> NDArray[Any]:
    """The first rows, as recorded, in whatever shape they come."""
    if found.ndim < 2 or found.shape[-1] != due.shape[-1]:
        return found
    return found.reshape(-1, found.shape[-1])[: len(due)]


def _difference(
    name: str, due: NDArray[Any], found: NDArray[Any], tolerance: float = 0.0
) -> _Difference | None:
    if found.shape != due.shape or found.dtype != due.dtype:
        shapes = f"{due.dtype} {due.shape} is due, {found.dtype} {found.shape} was computed"
        return _Difference(name, due.size, np.inf, shapes)
    if np.array_equal(due, found):
        return None
    steps = np.abs(found.astype(np.float64) - due)
    wrong = ~(steps <= tolerance * np.abs(due))
    if not wrong.any():
        return None
    place = tuple(map(int, np.argwhere(wrong)[0]))
    first = f"at {list(place)}, {due[place]} is due, {found[place]} was computed"
    return _Difference(name, int(wrong.sum()), float(steps.max()), first)
