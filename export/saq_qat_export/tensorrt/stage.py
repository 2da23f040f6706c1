"""The engine of a bundle: built from its graph for TensorRT on the machine at hand, and written beside it."""

from collections.abc import Sequence
from pathlib import Path

from saq_qat.errors import ArtifactError, GateError
from saq_qat.quant.plan.plan import Finding
from saq_qat.recipe.schema import TensorRt
from saq_qat_export.tensorrt.engine_rules import audit_findings
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.tensorrt.build.engine import BuiltEngine, build_engine, write_engine
from saq_qat_runtime.tensorrt.build.options import BuildOptions, WantedFlavour

__all__ = ["add_engine", "build_options"]

_MISSED_SHOWN = 5


def build_options(
    settings: TensorRt, flavour: WantedFlavour, timing_cache: Path | None = None
) -> BuildOptions:
    """A recipe's section ``deploy.tensorrt`` as options of one build."""
    return BuildOptions(
        flavour=flavour,
        precision=settings.precision,
        batch=(settings.batch.minimum, settings.batch.optimum, settings.batch.maximum),
        workspace_mib=settings.workspace_mib,
        optimization_level=settings.optimization_level,
        hardware_compatibility=settings.hardware_compatibility,
        version_compatible=settings.version_compatible,
        timing_cache=timing_cache,
    )


def add_engine(folder: Path, options: BuildOptions, *, allow_failed_audit: bool = False) -> BuiltEngine:
    """Build the engine of the bundle in ``folder`` and write it there with its record.

    Raises:
        ArtifactError: the bundle has no graph for TensorRT.
        GateError: a layer with quantized inputs did not become int8, and ``allow_failed_audit`` is false.
        ModelError: the bundle is damaged. SetupError: no TensorRT library can build here.
        EngineError: the library refused the graph, crashed, or took too long.
    """
    manifest = Manifest.load(folder)
    model = manifest.models.get("tensorrt")
    if model is None:
        raise ArtifactError(
            f"{folder}: an engine is built from the bundle's graph for TensorRT, and this bundle is for "
            f"{', '.join(manifest.models)} only. Write one that has it: saq-qat export RUN --trt."
        )
    built = build_engine(folder / model.name, options)
    missed = audit_findings(built.record.audit)
    if missed and not allow_failed_audit:
        raise GateError(_failure(missed, built.record.audit.total))
    write_engine(folder, built)
    return built


def _failure(missed: Sequence[Finding], total: int) -> str:
    listed = "\n".join(f"  {finding}" for finding in missed[:_MISSED_SHOWN])
    return (
        f"{len(missed)} of {total} convolutions and products have quantized inputs, yet run in float, so the "
        f"engine was not kept:\n{listed}\n--allow-failed-gate keeps it all the same."
    )
