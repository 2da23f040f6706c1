"""`saq-qat build`: the TensorRT engine of a bundle, built on the machine at hand."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from saq_qat.cli.console import progress, resolve_run
from saq_qat.errors import RecipeError

if TYPE_CHECKING:
    from saq_qat.recipe.schema import TensorRt
    from saq_qat_runtime.bundle.manifest import Manifest
    from saq_qat_runtime.tensorrt.build.engine import BuiltEngine

__all__ = ["FLAVOUR", "TIMING_CACHE", "TRITON", "build", "print_build", "print_engine", "write_repository"]

FLAVOUR = typer.Option(
    "--flavour", help="Which library builds. auto: TensorRT where it and a GPU are there, else TensorRT-RTX."
)
TIMING_CACHE = typer.Option("--timing-cache", help="File of kernel times, read and written; for TensorRT.")
TRITON = typer.Option(
    "--triton", metavar="DIR", help="Add the bundle to a model repository of Triton Inference Server."
)


def build(
    bundle: Annotated[
        Path | None, typer.Argument(help="Folder of the bundle; that of the newest run if left out.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Values of the recipe: deploy.tensorrt.batch.maximum=64."),
    ] = None,
    flavour: Annotated[Literal["auto", "tensorrt", "tensorrt-rtx"], FLAVOUR] = "auto",
    timing_cache: Annotated[Path | None, TIMING_CACHE] = None,
    allow_failed_gate: Annotated[
        bool, typer.Option("--allow-failed-gate", help="Keep the engine even if a layer runs in float.")
    ] = False,
    triton: Annotated[Path | None, TRITON] = None,
) -> None:
    """Build the engine of a bundle for this machine's GPU, and check that its layers are int8.

    An engine belongs to one TensorRT version and one kind of GPU: copy the bundle to where it will run, and
    build there. Exit code 4 if no TensorRT library can build here.
    """
    from saq_qat_export.bundle.records import tensorrt_record
    from saq_qat_runtime.bundle.manifest import Manifest
    from saq_qat_runtime.tensorrt.build.bundle import add_engine, options_of

    folder = bundle or resolve_run(None) / "export"
    settings = _settings(Manifest.load(folder), overrides or [])
    with progress(f"build {folder}", 1) as shown:
        shown.advance(note="building and auditing the engine")
        options = options_of(tensorrt_record(settings), flavour, timing_cache)
        built = add_engine(folder, options, allow_failed_audit=allow_failed_gate)
    print_engine(folder, built)
    if triton is not None:
        write_repository(folder, triton, allow_failed_gate=allow_failed_gate)


def write_repository(bundle: Path, repository: Path, *, allow_failed_gate: bool) -> None:
    """Add a bundle's models to a repository of Triton Inference Server, and say where they are."""
    from saq_qat_runtime.triton.repository import write_triton

    for version in write_triton(bundle, repository, allow_failed_gate=allow_failed_gate):
        typer.echo(f"triton: {version}")


def _settings(manifest: "Manifest", overrides: list[str]) -> "TensorRt":
    """The section deploy.tensorrt of the bundle's recipe, after overrides."""
    from saq_qat.recipe.load import parse_recipe

    own = parse_recipe(manifest.recipe.text, "the bundle's recipe").deploy.tensorrt
    settings = parse_recipe(manifest.recipe.text, "the bundle's recipe", overrides).deploy.tensorrt
    if settings.precision != own.precision:
        raise RecipeError(
            f"deploy.tensorrt.precision: the bundle's graph was written in {own.precision}, and an engine "
            "takes its types from there. Set it in the recipe and export again."
        )
    return settings


def print_engine(folder: Path, built: "BuiltEngine") -> None:
    """What was built, with what, how much of it is int8, and where it lies."""
    from saq_qat_runtime.report.engine_text import engine_text
    from saq_qat_runtime.report.text import printable

    typer.echo(printable("\n".join(engine_text(folder, built))))


def print_build(built: "BuiltEngine") -> None:
    """With what an engine was built, and how much of it is int8."""
    from saq_qat_runtime.report.engine_text import build_text
    from saq_qat_runtime.report.text import printable

    typer.echo(printable("\n".join(build_text(built))))
