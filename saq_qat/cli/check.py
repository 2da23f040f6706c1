"""`saq-qat check`: what the targets say to a recipe before anything is trained, or to any ONNX file."""

import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from saq_qat.cli.check_graph import CHECK_SCHEMA, Target, check_graph
from saq_qat.cli.console import print_json
from saq_qat.cli.findings import count_errors, print_findings, refuse
from saq_qat.cli.plan_text import plan_lines, planned_integers, unlearned_biases
from saq_qat.cli.untrained import deployable, untrained
from saq_qat.errors import RecipeError
from saq_qat_runtime.report.narrow import fitted

if TYPE_CHECKING:
    from saq_qat.quant.plan.plan import Finding, Plan
    from saq_qat.recipe.schema import Recipe

__all__ = ["check"]


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
        Target | None,
        typer.Option("--target", help="Judge an ONNX file for this target alone; for all if left out."),
    ] = None,
    build: Annotated[
        bool, typer.Option("--build", help="Build the ONNX file as well, and see which layers become int8.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="List every block, also those with equal plans.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
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
        check_graph(file, batch, target, build=build, as_json=as_json)
    else:
        _check_recipe(file, overrides or [], classes, full=full, as_json=as_json)


def _check_recipe(
    file: Path, overrides: list[str], classes: int | None, *, full: bool, as_json: bool
) -> None:
    from saq_qat.data.batches import steps_per_epoch
    from saq_qat.recipe.load import load_recipe

    recipe = _for_classes(load_recipe(file, overrides), classes)
    model, images = untrained(recipe)
    if classes is None:
        steps_per_epoch(images, recipe.train.batch_size)
    if recipe.quant is None:
        _print_unplanned(file, recipe, as_json=as_json)
        return
    from saq_qat.models.probe import CHANNELS
    from saq_qat.quant.network import plan_network

    deploy, side = recipe.deploy, recipe.data.image_size
    traced, plan = plan_network(
        model, recipe.quant, deploy.targets, cpu=deploy.onnxruntime.cpu, image=(CHANNELS, side, side)
    )
    if not as_json:
        for line in _plan_text(recipe, plan, full=full):
            typer.echo(line)
    findings = [*plan.findings, *(() if plan.errors else deployable(traced, recipe, images, plan))]
    if as_json:
        _print_recipe_json(file, recipe, plan, findings)
    else:
        print_findings(findings)
        for line in fitted(_closing_lines(recipe, plan)):
            typer.echo(line)
    refuse(file, findings)


def _print_unplanned(file: Path, recipe: "Recipe", *, as_json: bool) -> None:
    if as_json:
        _print_recipe_json(file, recipe, None, [])
        return
    line = f"{file}: valid; trains {recipe.model.name} in full precision, so there is no plan to check."
    typer.echo("\n".join(fitted([line])))


def _print_recipe_json(
    file: Path, recipe: "Recipe", plan: "Plan | None", findings: "Sequence[Finding]"
) -> None:
    lines: list[str] = []
    if plan is not None:
        lines = planned_integers(plan, recipe.deploy.targets, integer_attention=_integer_attention(recipe))
    values = {
        "schema_version": CHECK_SCHEMA,
        "file": str(file),
        "passed": not count_errors(findings),
        "recipe": recipe.model_dump(mode="json"),
        "plan": None if plan is None else _plan_json(plan),
        "findings": [asdict(finding) for finding in findings],
        "planned_integers": lines,
    }
    print_json(values, "check")


def _plan_json(plan: "Plan") -> dict[str, Any]:
    values = asdict(plan)
    del values["findings"]  # those of the rules over its graphs stand beside them, for the whole recipe
    return values


def _integer_attention(recipe: "Recipe") -> bool:
    return "tensorrt" not in recipe.deploy.targets or recipe.deploy.tensorrt.attention == "int8"


def _plan_text(recipe: "Recipe", plan: "Plan", *, full: bool) -> list[str]:
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    return plan_lines(plan, integer_attention=_integer_attention(recipe), fold=not full, width=width)


def _closing_lines(recipe: "Recipe", plan: "Plan") -> list[str]:
    biases = unlearned_biases(plan, [stage.kind for stage in recipe.train.stages])
    note = [f"note {biases}", ""] if biases and recipe.deploy.targets else [""]
    return [
        *note,
        *planned_integers(plan, recipe.deploy.targets, integer_attention=_integer_attention(recipe)),
    ]


def _for_classes(recipe: "Recipe", classes: int | None) -> "Recipe":
    """The recipe, with synthetic images in the place of its own if the number of classes is given."""
    from saq_qat.recipe.schema import Synthetic

    if classes is None:
        return recipe
    data = Synthetic(kind="synthetic", image_size=recipe.data.image_size, classes=classes)
    return recipe.model_copy(update={"data": data})
