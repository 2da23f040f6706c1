"""`saq-qat export`: a run as a bundle of integers, written only if they are proved to be the trained ones."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from saq_qat.cli.build import FLAVOUR, TIMING_CACHE, TRITON, print_engine, write_repository
from saq_qat.cli.console import progress, resolve_run
from saq_qat.errors import RecipeError
from saq_qat_runtime.errors import BackendUnavailable

if TYPE_CHECKING:
    from saq_qat_export.proof.prove import ProofSize
    from saq_qat_export.run import Exported
    from saq_qat_runtime.tensorrt.build.options import BuildOptions

__all__ = ["export"]

_OUTPUT = typer.Option(
    "--output", help="Folder of the bundle, RUN/export if left out; the file of --float, else RUN/float.onnx."
)
_CHECKPOINT = typer.Option(
    "--checkpoint", help="Which checkpoint of the run; the best of its last stage if left out."
)
_IMAGES = typer.Option(
    "--images", help="Write the images of expected.csv into this folder, for saq-qat-runtime verify."
)
_CODE_IMAGES = typer.Option("--code-images", help="Images whose every code is compared.", min=1)
_TOP1_IMAGES = typer.Option("--top1-images", help="Validation images to classify; 0 for all.", min=0)
_FAILED_GATE = typer.Option(
    "--allow-failed-gate", help="Write the bundle even if the proof fails, marked so."
)
_ONNX = typer.Option("--onnx/--no-onnx", help="Write the ONNX graph for ONNX Runtime.")
_TRT = typer.Option("--trt/--no-trt", help="Write the graph for TensorRT and build its engine.")
_FLOAT = typer.Option("--float", help="Write the float32 network as one ONNX file, and no bundle.")


def export(
    run: Annotated[Path | None, typer.Argument(help="A run's folder; the newest run if left out.")] = None,
    onnx: Annotated[bool, _ONNX] = True,
    trt: Annotated[bool, _TRT] = False,
    float32: Annotated[bool, _FLOAT] = False,
    flavour: Annotated[Literal["auto", "tensorrt", "tensorrt-rtx"], FLAVOUR] = "auto",
    timing_cache: Annotated[Path | None, TIMING_CACHE] = None,
    output: Annotated[Path | None, _OUTPUT] = None,
    checkpoint: Annotated[Literal["last", "best"] | None, _CHECKPOINT] = None,
    images: Annotated[Path | None, _IMAGES] = None,
    triton: Annotated[Path | None, TRITON] = None,
    code_images: Annotated[int, _CODE_IMAGES] = 8,
    top1_images: Annotated[int, _TOP1_IMAGES] = 1000,
    allow_failed_gate: Annotated[bool, _FAILED_GATE] = False,
) -> None:
    """Export a run: integer codes, scales, QDQ graphs, manifest and golden samples, behind the gate.

    With --trt, a TensorRT engine as well. Exit code 4 if no TensorRT library can build one here; the bundle
    is written all the same.

    With --float: of a run in full precision the network itself; of a quantized one the network with its
    quantizers taken out, its weights clipped and not rounded, and BatchNorm's statistics estimated again.
    That is the float32 of bench; its accuracy is not that of a float training.
    """
    from saq_qat_export.proof.prove import ProofSize
    from saq_qat_runtime.tensorrt.build.bundle import bundle_options

    if not onnx:
        raise RecipeError("export writes ONNX bundles; engines are built from them. Drop --no-onnx.")
    folder = resolve_run(run)
    if float32:
        _check_float_alone({"--trt": trt, "--images": images, "--triton": triton})
        _export_float(folder, output or folder / "float.onnx", checkpoint, top1_images or None)
        return
    bundle, size = output or folder / "export", ProofSize(code_images, top1_images or None)
    exported = _export_bundle(
        folder, bundle, checkpoint, size, images, trt=trt, allow_failed_gate=allow_failed_gate
    )
    _print(exported)
    if images is not None:
        typer.echo(f"images of expected.csv: {images}")
    if trt:
        options = bundle_options(exported.manifest, flavour=flavour, timing_cache=timing_cache)
        _build_engine(bundle, options, allow_failed_gate=allow_failed_gate)
    elif "tensorrt" in exported.manifest.models:
        typer.echo(f"no engine: build it where it will run, with: saq-qat build {bundle}")
    if triton is not None:
        write_repository(bundle, triton, allow_failed_gate=allow_failed_gate)


def _check_float_alone(asked: dict[str, object]) -> None:
    """Raise RecipeError for an option of bundles beside --float."""
    of_bundles = [name for name, value in asked.items() if value]
    if of_bundles:
        raise RecipeError(
            f"--float writes a float32 graph alone, and {', '.join(of_bundles)} is about a bundle of "
            "integers. Name one."
        )


def _export_bundle(
    run: Path,
    bundle: Path,
    checkpoint: Literal["last", "best"] | None,
    size: "ProofSize",
    images: Path | None,
    *,
    trt: bool,
    allow_failed_gate: bool,
) -> "Exported":
    from saq_qat_export.run import export_run

    with progress("export") as shown:
        shown.say(f"export {run}")
        return export_run(
            run,
            bundle,
            checkpoint=checkpoint,
            size=size,
            tensorrt=trt,
            images=images,
            allow_failed_gate=allow_failed_gate,
            on_step=lambda step: shown.advance(note=step),
        )


def _export_float(
    run: Path, path: Path, checkpoint: Literal["last", "best"] | None, images: int | None
) -> None:
    from saq_qat.bench.float_file import export_float

    with progress("export") as shown:
        shown.say(f"export {run}")
        shown.advance(note="exporting to ONNX and comparing with PyTorch")
        found = export_float(run, path, checkpoint=checkpoint, images=images)
    typer.echo(str(found.choice))
    typer.echo(
        f"float32: {found.network}; top-1 {found.top1:.2f} % on {found.images:,} images, logits within "
        f"{found.largest_difference:.1e} of PyTorch's"
    )
    typer.echo(f"file: {found.path} ({found.bytes / 1e6:.2f} MB)")


def _build_engine(bundle: Path, options: "BuildOptions", *, allow_failed_gate: bool) -> None:
    from saq_qat_runtime.tensorrt.build.bundle import add_engine

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
    if exported.manifest.probes is not None:
        from saq_qat_runtime.report.session_text import coverage_line

        typer.echo(f"self-test {coverage_line(exported.manifest.probes.coverage)}")
    typer.echo(f"bundle: {exported.folder}")
