"""`saq-qat export`: a run as a bundle of integers, written only if they are proved to be the trained ones."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from saq_qat.cli.console import progress, resolve_run
from saq_qat.errors import RecipeError

if TYPE_CHECKING:
    from saq_qat_export.run import Exported

__all__ = ["export"]

_STEPS = 4


def export(
    run: Annotated[Path | None, typer.Argument(help="A run's folder; the newest run if left out.")] = None,
    onnx: Annotated[
        bool, typer.Option("--onnx/--no-onnx", help="Write the ONNX graph for ONNX Runtime.")
    ] = True,
    output: Annotated[
        Path | None, typer.Option("--output", help="Folder of the bundle; RUN/export if left out.")
    ] = None,
    checkpoint: Annotated[
        Literal["last", "best"], typer.Option("--checkpoint", help="Which checkpoint of the run.")
    ] = "last",
    code_images: Annotated[int, typer.Option(help="Images whose every code is compared.", min=1)] = 8,
    top1_images: Annotated[int, typer.Option(help="Validation images to classify; 0 for all.", min=0)] = 1000,
    allow_failed_gate: Annotated[
        bool, typer.Option("--allow-failed-gate", help="Write the bundle even if the proof fails, marked so.")
    ] = False,
) -> None:
    """Export a run: integer codes, scales, QDQ graph, manifest and golden samples, behind the gate."""
    from saq_qat_export.proof import ProofSize
    from saq_qat_export.run import export_run

    if not onnx:
        raise RecipeError("export writes ONNX bundles; --no-onnx leaves nothing to write. Drop the option.")
    folder = resolve_run(run)
    with progress(f"export {folder}", _STEPS) as shown:
        exported = export_run(
            folder,
            output or folder / "export",
            checkpoint=checkpoint,
            size=ProofSize(code_images, top1_images or None),
            allow_failed_gate=allow_failed_gate,
            on_step=lambda step: shown.advance(note=step),
        )
    _print(exported)


def _print(exported: "Exported") -> None:
    from saq_qat.cli.ladder import print_rungs

    print_rungs(exported.proof)
    sizes = exported.manifest.sizes
    file_bytes = sum(sizes.file_bytes.values())
    typer.echo(
        f"{sizes.parameters:,} parameters: {sizes.float_bytes / 1e6:.2f} MB in float32, "
        f"{sizes.theoretical_bits / 8e6:.2f} MB at their bits, {file_bytes / 1e6:.2f} MB in the file"
    )
    typer.echo(f"bundle: {exported.folder}")
