"""The rules that only a builder can check: the graph builds, and what is quantized becomes int8."""

from pathlib import Path

from saq_qat.quant.plan.plan import Finding
from saq_qat_runtime.errors import EngineError
from saq_qat_runtime.tensorrt.build.engine import BuiltEngine, build_engine
from saq_qat_runtime.tensorrt.build.options import BuildOptions
from saq_qat_runtime.tensorrt.engine_record import Audit

__all__ = ["audit_findings", "try_build"]

_FIX = "The rules over graphs may name the cause: saq-qat check MODEL.onnx."
# Enterprise TensorRT documents int8 for it, TensorRT-RTX runs it in float.
_FLOAT_ON_RTX = "ConvTranspose"


def try_build(source: Path, options: BuildOptions) -> tuple[BuiltEngine | None, tuple[Finding, ...]]:
    """Build ``source`` to see whether it can be built; a refusal is a finding of rule TRT201.

    Raises:
        BackendUnavailable: no TensorRT library can build here.
    """
    try:
        built = build_engine(source, options)
    except EngineError as error:
        return None, (Finding("TRT201", "error", source.name, f"it cannot be built: {error}", _FIX),)
    return built, audit_findings(built.record.audit)


def audit_findings(audit: Audit) -> tuple[Finding, ...]:
    """Rule TRT202 of TensorRT-RTX's build log, TRT301 of an engine inspected on its GPU: what missed int8."""
    return tuple(
        Finding(
            audit.rule, "warning" if layer.op == _FLOAT_ON_RTX else "error", layer.node, layer.reason, _FIX
        )
        for layer in audit.missed
    )
