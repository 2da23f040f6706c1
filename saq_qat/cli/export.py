"""`saq-qat export`: a run as a bundle of integers, written only if they are proved to be the trained ones."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from saq_qat.cli.build import FLAVOUR, TIMING_CACHE, print_engine
from saq_qat.cli.console import progress, resolve_run
from saq_qat.errors import RecipeError
from saq_qat_runtime.errors import BackendUnavailable

if TYPE_CHECKING:
    from saq_qat.recipe.schema import TensorRt
    from saq_qat_export.run import Exported

__all__ = ["export"]

_IMAGES = typer.Option(
    "--images", help="Write the images of expected.csv into this folder, for saq-qat-runtime verify."
)


def export(
    run: Annotated[Path | None, typer.Argument(help="A run's folder; the newest run if left out.")] = None,
    onnx: Annotated[
        bool, typer.Option("--onnx/--no-onnx", help="Write the ONNX graph for ONNX Runtime.")
    ] = True,
    trt: Annotated[
        bool,
        typer.Option("--trt/--no-trt", help="Write the graph for TensorRT and build its engine."),
    ] = False,
    flavour: Annotated[Literal["auto", "tensorrt", "tensorrt-rtx"], FLAVOUR] = "auto",
    timing_cache: Annotated[Path | None, TIMING_CACHE] = None,
    output: Annotated[
        Path | None, typer.Option("--output", help="Folder of the bundle; RUN/export if left out.")
    ] = None,
    checkpoint: Annotated[
        Literal["last", "best"] | None,
        typer.Option(
            "--checkpoint", help="Which checkpoint of the run; the best of its last stage if left out."
        ),
    ] = None,
    images: Annotated[Path | None, _IMAGES] = None,
    code_images: Annotated[int, typer.Option(help="Images whose every code is compared.", min=1)] = 8,
    top1_images: Annotated[int, typer.Option(help="Validation images to classify; 0 for all.", min=0)] = 1000,
    allow_failed_gate: Annotated[
        bool, typer.Option("--allow-failed-gate", help="Write the bundle even if the proof fails, marked so.")
    ] = False,
) -> None:
    """Export a run: integer codes, scales, QDQ graphs, manifest and golden samples, behind the gate.

    With --trt, a TensorRT engine as well. Exit code 4 if no TensorRT library can build one here; the bundle
    is written all the same.
    """
    from saq_qat_export.proof.prove import ProofSize
    from saq_qat_export.run import export_run

    if not onnx:
        raise RecipeError("export writes ONNX bundles; engines are built from them. Drop --no-onnx.")
    folder = resolve_run(run)
    bundle = output or folder / "export"
    with progress("export") as shown:
        shown.say(f"export {folder}")
        exported = export_run(
            folder,
            bundle,
            checkpoint=checkpoint,
            size=ProofSize(code_images, top1_images or None),
            tensorrt=trt,
            images=images,
            allow_failed_gate=allow_failed_gate,
            on_step=lambda step: shown.advance(note=step),
        )
    _print(exported)
    if images is not None:
        typer.echo(f"images of expected.csv: {images}")
    if trt:
        settings = exported.recipe.deploy.tensorrt
        _build_engine(bundle, settings, flavour, timing_cache, allow_failed_gate=allow_failed_gate)
    elif "tensorrt" in exported.manifest.models:
        typer.echo(f"no engine: build it where it will run, with: saq-qat build {bundle}")


def _build_engine(
    bundle: Path,
    settings: "TensorRt",
    flavour: Literal["auto", "tensorrt", "tensorrt-rtx"],
    timing_cache: Path | None,
    *,
    allow_failed_gate: bool,
) -> None:
    from saq_qat_export.tensorrt.stage import add_engine, build_options

    options = build_options(settings, flavour, timing_cache)
    try:
        built = add_engine(bundle, options, allow_failed_audit=allow_failed_gate)
    except BackendUnavailable as error:
        raise BackendUnavailable(
            f"{error}\nThe bundle {bundle} is complete but for its engine, which can be built elsewhere: "
            "saq-qat build."
        ) from error
    print_engine(bundle, built)


def _print(exported: "Exported") -> None:
    from saq_qat.cli.findings import print_findings
    from saq_qat.cli.proof_text import print_comparisons
    from saq_qat_export.proof.fixes import flip_fix

    typer.echo(str(exported.choice))
    print_comparisons(exported.proof)
    fix = flip_fix(exported.proof.comparisons, biases_learned=exported.form == "deploy")
    if fix:
        typer.echo(f"note {fix}")
    print_findings(exported.findings)
    sizes, models = exported.manifest.sizes, exported.manifest.models
    files = ", ".join(f"{model.bytes / 1e6:.2f} MB in {model.name}" for model in models.values())
    typer.echo(
        f"{sizes.parameters:,} parameters: {sizes.float_bytes / 1e6:.2f} MB in float32, "
        f"{sizes.theoretical_bits / 8e6:.2f} MB at their bits, {files}"
    )
    typer.echo(f"bundle: {exported.folder}")
