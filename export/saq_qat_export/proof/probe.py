"""Codes as an engine computes them: the same ONNX graph with every code tensor as a further output."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as state

from saq_qat.errors import GateError
from saq_qat_export.graph.onnx_graph import INPUT, OUTPUT, OnnxGraph
from saq_qat_export.reference.deploy_view import Stored
from saq_qat_export.reference.integer_math import Codes, Float32
from saq_qat_runtime.onnxruntime import EXACT_PAIRS

__all__ = ["Observation", "Probe", "TeacherForcedProbe", "probe_of", "with_code_outputs"]

_FAILURES = tuple(
    value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)
)


@dataclass(frozen=True)
class Observation:
    """What an engine computed from some images.

    Attributes:
        codes: stored (zero point included, uint8 or int8), by tensor name.
        values: float32 results of integer kernels, by tensor name; logits among them if such a kernel writes
            them.
    """

    codes: dict[str, Stored]
    values: dict[str, Float32]
    logits: Float32


def with_code_outputs(graph: OnnxGraph) -> bytes:
    """The serialised model with its code tensors, then its float results, behind its own outputs."""
    model = onnx.load_from_string(graph.content)
    stored = {entry.name: entry.type.tensor_type.elem_type for entry in model.graph.value_info}
    given = {entry.name for entry in model.graph.output}
    for name in (*graph.code_tensors, *(name for name in graph.float_results if name not in given)):
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, stored[name], None))
    return bytes(model.SerializeToString())


class Probe:
    """An ONNX Runtime session on the CPU that also returns codes; optimized as in production by default.

    For a graph over the pair bound, the kernels are the exact ones that a bundle's session asks for.
    """

    def __init__(self, graph: OnnxGraph, *, optimize: bool = True, threads: int = 0) -> None:
        self._graph = graph
        self._session = _session(
            with_code_outputs(graph),
            optimize=optimize,
            threads=threads,
            exact_pairs=bool(graph.over_pair_bound),
        )

    def observe(self, images: Float32) -> Observation:
        """Codes, float results and logits of float32 images (N, C, H, W)."""
        names = (OUTPUT, *self._graph.code_tensors, *self._graph.float_results)
        seen = dict(zip(names, _computed(self._session, names, {INPUT: images}), strict=True))
        codes, values = (
            {name: seen[name] for name in some}
            for some in (self._graph.code_tensors, self._graph.float_results)
        )
        return Observation(codes, values, seen[OUTPUT])

    def run(self, images: Float32) -> tuple[dict[str, Stored], Float32]:
        """Stored codes by tensor name, and logits, of float32 images (N, C, H, W)."""
        seen = self.observe(images)
        return seen.codes, seen.logits


@lru_cache(maxsize=1)
def probe_of(graph: OnnxGraph) -> Probe:
    """As ``Probe``, kept for the next who asks: an engine takes a second to load a large graph."""
    return Probe(graph)


class TeacherForcedProbe:
    """A graph for TensorRT on ONNX Runtime, node by node as written, every code tensor cut in two.

    What follows a quantizer reads given codes, and what the quantizer computes is an output: one run compares
    every tensor, and a difference does not reach the next.
    """

    def __init__(self, graph: OnnxGraph, *, threads: int = 0) -> None:
        model = onnx.load_from_string(graph.content)
        types = {entry.name: entry.type.tensor_type.elem_type for entry in model.graph.value_info}
        names = set(graph.code_tensors)
        for node in model.graph.node:
            node.output[:] = [f"{name}.own" if name in names else name for name in node.output]
        own = [f"{name}.own" for name in graph.code_tensors]
        for entries, added in ((model.graph.input, graph.code_tensors), (model.graph.output, own)):
            entries.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.INT8, None) for n in added)
        model.graph.output.extend(
            onnx.helper.make_tensor_value_info(name, types[name], None)
            for name in graph.float_results
            if name != OUTPUT
        )
        del model.graph.value_info[:]
        self._graph = graph
        self._session = _session(model.SerializeToString(), optimize=False, threads=threads)

    def run(
        self, images: Float32, taught: Mapping[str, Codes]
    ) -> tuple[dict[str, Codes], dict[str, Float32]]:
        """Codes (int32), and floats where products write them, each computed from ``taught`` codes before it.

        Args:
            images: float32 (N, C, H, W).
        """
        names, floats = self._graph.code_tensors, self._graph.float_results
        feeds = {name: taught[name].astype(np.int8) for name in names}
        own = [*(f"{name}.own" for name in names), *floats]
        results = _computed(self._session, own, {INPUT: images, **feeds})
        codes, values = results[: len(names)], results[len(names) :]
        return (
            {name: array.astype(np.int32) for name, array in zip(names, codes, strict=True)},
            dict(zip(floats, values, strict=True)),
        )


def _session(
    content: bytes, *, optimize: bool, threads: int, exact_pairs: bool = False
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    if exact_pairs:
        options.add_session_config_entry(EXACT_PAIRS, "1")
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with _refusals_named():
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _computed(
    session: onnxruntime.InferenceSession, names: Sequence[str], feeds: Mapping[str, Any]
) -> list[Any]:
    with _refusals_named():
        return list(session.run(names, dict(feeds)))


@contextmanager
def _refusals_named() -> Iterator[None]:
    """A graph that the engine refuses is no proved graph; its exceptions share no base below Exception."""
    try:
        yield
    except _FAILURES as error:
        raise GateError(
            "ONNX Runtime refuses the exported graph, so nothing is proved and no bundle was written: "
            f"{' '.join(str(error).split())}. Report it with the recipe."
        ) from error
