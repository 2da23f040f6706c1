"""`saq-qat check`: what the targets say to a recipe before anything is trained, or to any ONNX file."""

import shutil
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saq_qat.cli.findings import count_levels, print_findings
from saq_qat.cli.plan_text import plan_lines, planned_integers, unlearned_biases
from saq_qat.cli.untrained import deployable, untrained
from saq_qat.errors import LegalityError, RecipeError

if TYPE_CHECKING:
    import onnx_ir as ir

    from saq_qat.quant.plan.plan import Finding
    from saq_qat.recipe.schema import Recipe

__all__ = ["check"]


class _Target(StrEnum):
    onnxruntime = "onnxruntime"
    tensorrt = "tensorrt"


def check(
    file: Annotated[Path, typer.Argument(help="A recipe, or an ONNX file (.onnx) of whatever origin.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Values to set for this check.")
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option("--classes", help="Number of classes; taken from the data if left out.", min=1),
    ] = None,
    batch: Annotated[
        tuple[int, int, int],
        typer.Option(
            "--batch", metavar="MIN OPT MAX", help="Batch sizes an ONNX file with a dynamic batch shall run."
        ),
    ] = (1, 8, 32),
    target: Annotated[
        _Target | None,
        typer.Option("--target", help="Judge an ONNX file for this target alone; for all if left out."),
    ] = None,
    build: Annotated[
        bool, typer.Option("--build", help="Build the ONNX file as well, and see which layers become int8.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="List every block, also those with equal plans.")
    ] = False,
) -> None:
    """Print which tensor gets which quantizer and where it will run as integer; fail on an illegal plan.

    With an ONNX file: hold its quantization against the rules of TensorRT, and its integer products against
    what x86 CPUs without VNNI add without saturating (ORT005). Of a recipe, images and pretrained weights are
    read, and the untrained network goes through export: its integers are compared, and nothing is kept. Exit
    code 2 if a target cannot run it.
    """
    if file.suffix == ".onnx":
        if overrides:
            raise RecipeError(f"An ONNX file has no values to set; got {' '.join(overrides)}.")
        _check_graph(file, batch, target, build=build)
    else:
        _check_recipe(file, overrides or [], classes, full=full)


def _check_graph(file: Path, batch: tuple[int, int, int], target: "_Target | None", *, build: bool) -> None:
    from saq_qat_export.lint import read_model

    model = read_model(file)
    findings: tuple[Finding, ...] = ()
    if target != _Target.onnxruntime:
        findings += _tensorrt_findings(file, model, batch, build=build)
    if target != _Target.tensorrt:
        findings += _pair_findings(file, is_asked_for=target is not None)
    _refuse(file, findings)


def _pair_findings(file: Path, *, is_asked_for: bool) -> "tuple[Finding, ...]":
    """Rule ORT005; of a file for TensorRT, unless asked for, no more than that it is none for CPUs."""
    import onnx

    from saq_qat_export.lint.pair_bound import integer_products, is_for_tensorrt, pair_finding

    model = onnx.load(file)
    products = integer_products(model)
    over = [product for product in products if product.exceeds]
    where = f"{len(over)} of {len(products)} integer products exceed the pair bound"
    if over and not is_asked_for and is_for_tensorrt(products, model):
        typer.echo(
            f"{file}: int8 codes throughout, so for TensorRT; on x86 CPUs {where} (--target onnxruntime)."
        )
        return ()
    findings = tuple(pair_finding(product) for product in over)
    print_findings(findings)
    typer.echo(f"{file}: {where} for target onnxruntime.")
    return findings


def _tensorrt_findings(
    file: Path, model: "ir.Model", batch: tuple[int, int, int], *, build: bool
) -> "tuple[Finding, ...]":
    from saq_qat_export.lint import LintSettings, batch_profiles, has_quantization, lint_model

    profiles = batch_profiles(model, *batch)
    findings = lint_model(model, LintSettings(profiles=profiles))
    if build:
        findings += _build_findings(file, batch)
    print_findings(findings)
    for profile in profiles:
        typer.echo(
            f"{profile.input}: dynamic batch, judged for {', '.join(map(str, batch))} (minimum, optimum, "
            "maximum); --batch sets others."
        )
    if not has_quantization(model):
        typer.echo("The file has no quantized tensor: TensorRT runs it in float.")
    typer.echo(f"{file}: {count_levels(findings)} for target tensorrt.")
    return findings


def _build_findings(file: Path, batch: tuple[int, int, int]) -> "tuple[Finding, ...]":
    from saq_qat.cli.build import print_build
    from saq_qat_export.tensorrt.engine_rules import try_build
    from saq_qat_runtime.tensorrt.build.options import BuildOptions

    built, findings = try_build(file, BuildOptions(batch=batch))
    if built is not None:
        print_build(built)
    return findings


def _check_recipe(file: Path, overrides: list[str], classes: int | None, *, full: bool) -> None:
    from saq_qat.recipe.load import load_recipe

    recipe = _for_classes(load_recipe(file, overrides), classes)
    model, images = untrained(recipe)
    if recipe.quant is None:
        typer.echo(
            f"{file}: valid; trains {recipe.model.name} in full precision, so there is no plan to check."
        )
        return
    from saq_qat.models.probe import CHANNELS
    from saq_qat.quant.network import plan_network

    deploy, side = recipe.deploy, recipe.data.image_size
    traced, plan = plan_network(
        model, recipe.quant, deploy.targets, cpu=deploy.onnxruntime.cpu, image=(CHANNELS, side, side)
    )
    integer_attention = "tensorrt" not in recipe.deploy.targets or recipe.deploy.tensorrt.attention == "int8"
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in plan_lines(plan, integer_attention=integer_attention, fold=not full, width=width):
        typer.echo(line)
    findings = [*plan.findings, *(() if plan.errors else deployable(traced, recipe, images, plan))]
    print_findings(findings)
    biases = unlearned_biases(plan, [stage.kind for stage in recipe.train.stages])
    typer.echo(f"note {biases}\n" if biases and recipe.deploy.targets else "")
    for line in planned_integers(plan, recipe.deploy.targets, integer_attention=integer_attention):
        typer.echo(line)
    _refuse(file, findings)


def _refuse(file: Path, findings: "list[Finding] | tuple[Finding, ...]") -> None:
    errors = sum(finding.level == "error" for finding in findings)
    if errors:
        raise LegalityError(f"{file}: {errors} error(s) above stop it from being deployed.")


def _for_classes(recipe: "Recipe", classes: int | None) -> "Recipe":
    """The recipe, with synthetic images in the place of its own if the number of classes is given."""
    from saq_qat.recipe.schema import Synthetic

    if classes is None:
        return recipe
    data = Synthetic(kind="synthetic", image_size=recipe.data.image_size, classes=classes)
    return recipe.model_copy(update={"data": data})
