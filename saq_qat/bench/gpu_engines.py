"""Who takes part on the GPU beside the bundle: float engines of the same network."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import onnx
import onnx_ir as ir

from saq_qat_export.graph.passes.float16 import to_float16
from saq_qat_runtime.bench.gpu_runners import GpuBundle, GpuRunner, batches_of, gpu_runner
from saq_qat_runtime.errors import SessionError
from saq_qat_runtime.tensorrt.backend import TensorRtBackend
from saq_qat_runtime.tensorrt.build.engine import BuiltEngine, build_engine
from saq_qat_runtime.tensorrt.build.options import BuildOptions
from saq_qat_runtime.tensorrt.engine_record import EngineRecord

__all__ = ["float_engines"]

Build = Callable[[Path, BuildOptions], BuiltEngine]
Precision = Literal["float32", "float16"]

_PRECISIONS: tuple[Precision, ...] = ("float32", "float16")


def float_engines(
    float_model: bytes, bundle: GpuBundle, build: Build = build_engine
) -> tuple[list[GpuRunner], tuple[str, ...]]:
    """Engines of the same network in float32 and float16, built as the bundle's was; and why one is missing.

    Args:
        float_model: ONNX, float32.
    """
    found: list[GpuRunner] = []
    reasons: list[str] = []
    for precision in _PRECISIONS:
        try:
            built = _build(precision, _in_precision(float_model, precision), bundle.record, build)
            backend = TensorRtBackend(built.content, built.record, bundle.library, machine=bundle.machine)
        except SessionError as error:
            reasons.append(f"{precision} engine: {error}")
        else:
            found.append(gpu_runner(precision, "the run's weights without quantizers", backend, built.record))
    return found, tuple(reasons)


def _in_precision(float_model: bytes, precision: Precision) -> bytes:
    if precision == "float32":
        return float_model
    model = ir.from_proto(onnx.load_from_string(float_model))
    to_float16(model)
    return bytes(ir.to_proto(model).SerializeToString())


def _build(precision: Precision, content: bytes, record: EngineRecord, build: Build) -> BuiltEngine:
    """With the settings of the bundle's engine, so that the arithmetic is all that differs."""
    options = BuildOptions(
        flavour=record.flavour,
        precision=precision,
        batch=batches_of(record),
        workspace_mib=record.workspace_mib,
        optimization_level=record.optimization_level,
        hardware_compatibility=record.hardware_compatibility,
        version_compatible=record.version_compatible,
    )
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / f"{precision}.onnx"
        source.write_bytes(content)
        return build(source, options)
