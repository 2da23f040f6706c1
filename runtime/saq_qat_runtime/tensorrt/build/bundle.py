"""The engine of a bundle: built from its graph for TensorRT on the machine at hand, and written beside it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from saq_qat_runtime.bundle.deploy import TensorRtRecord
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.errors import EngineError, InputError, ModelError
from saq_qat_runtime.tensorrt.build.engine import (
    BuiltEngine,
    build_engine,
    check_engine_place,
    write_engine,
)
from saq_qat_runtime.tensorrt.build.options import BuildOptions, WantedFlavour
from saq_qat_runtime.tensorrt.engine_record import ENGINE_FILES, Audit

__all__ = ["add_engine", "bundle_options", "options_of"]

_MISSED_SHOWN = 5


def options_of(
    settings: TensorRtRecord, flavour: WantedFlavour, timing_cache: Path | None = None
) -> BuildOptions:
    """What a bundle says of its engine as options of one build; raises InputError as these do."""
    smallest, usual, largest = settings.batch
    return BuildOptions(
        flavour=flavour,
        precision=settings.precision,
        batch=(smallest, usual, largest),
        workspace_mib=settings.workspace_mib,
        optimization_level=settings.optimization_level,
        hardware_compatibility=settings.hardware_compatibility,
        version_compatible=settings.version_compatible,
        timing_cache=timing_cache,
    )


def bundle_options(
    manifest: Manifest,
    *,
    flavour: WantedFlavour = "auto",
    batch: Sequence[int] | None = None,
    workspace_mib: int | None = None,
    timing_cache: Path | None = None,
) -> BuildOptions:
    """Options of a build from what the bundle says, and what is wanted otherwise on this machine.

    batch: smallest, usual and largest. Raises InputError for values out of range.
    """
    options = options_of(manifest.deploy.tensorrt, flavour, timing_cache)
    if batch is not None:
        if len(batch) != 3:
            raise InputError(f"batch: needs smallest, usual and largest, got {list(batch)}.")
        options = replace(options, batch=(batch[0], batch[1], batch[2]))
    return options if workspace_mib is None else replace(options, workspace_mib=workspace_mib)


def add_engine(folder: Path, options: BuildOptions, *, allow_failed_audit: bool = False) -> BuiltEngine:
    """Build the engine of the bundle in `folder` and write it there with its record.

    Raises:
        ModelError: the bundle is damaged, or has no graph for TensorRT.
        BackendUnavailable: no TensorRT library can build here.
        EngineError: the library refused the graph, crashed, or took too long; or a layer with quantized
            inputs did not become int8, and `allow_failed_audit` is false.
        ResultError: where the engine belongs lies a file of the user's.
        OSError: the folder cannot be written.
    """
    manifest = Manifest.load(folder)
    model = manifest.models.get("tensorrt")
    if model is None:
        raise ModelError(
            f"{folder}: an engine is built from the bundle's graph for TensorRT, and this bundle is for "
            f"{', '.join(manifest.models)} only. Where it was trained: saq-qat export RUN --trt."
        )
    if options.flavour != "auto":  # which library builds is known, and a build takes minutes
        check_engine_place(folder, ENGINE_FILES[options.flavour])
    built = build_engine(folder / model.name, options)
    if built.record.audit.missed and not allow_failed_audit:
        raise EngineError(_failure(built.record.audit))
    write_engine(folder, built)
    return built


def _failure(audit: Audit) -> str:
    missed = audit.missed
    listed = "\n".join(f"  {audit.rule} {layer.node}: {layer.reason}" for layer in missed[:_MISSED_SHOWN])
    return (
        f"{len(missed)} of {audit.total} convolutions and products have quantized inputs, yet run in float, "
        f"so the engine was not kept:\n{listed}\nThe rules over graphs may name the cause, where it was "
        "trained: saq-qat check MODEL.onnx. --allow-failed-gate keeps the engine all the same."
    )
