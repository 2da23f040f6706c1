"""`saq-qat check`: the plan of a recipe and what its targets say to it, before anything is trained."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saq_qat.cli.console import table
from saq_qat.errors import LegalityError

if TYPE_CHECKING:
    from saq_qat.quant.plan import Plan
    from saq_qat.recipe.schema import Quant, Recipe

__all__ = ["check"]


def check(
    recipe: Annotated[Path, typer.Argument(help="The recipe's file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Values to set for this check.")
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option("--classes", help="Number of classes; taken from the data if left out.", min=1),
    ] = None,
) -> None:
    """Print which tensor gets which quantizer and where it will run as integer; fail on an illegal plan.

    Exit code 2 if a target cannot run the plan. Weights are not loaded and nothing is trained.
    """
    from saq_qat.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    if loaded.quant is None:
        typer.echo(
            f"{recipe}: valid; trains {loaded.model.name} in full precision, so there is no plan to check."
        )
        return
    plan = _plan(loaded, loaded.quant, classes)
    _print_layers(plan)
    _print_tensors(plan)
    for finding in plan.findings:
        typer.echo(str(finding))
    typer.echo(f"\n{_summary(plan, loaded.deploy.targets)}")
    if plan.errors:
        raise LegalityError(
            f"{recipe}: {len(plan.errors)} finding(s) above stop this plan from being deployed."
        )


def _summary(plan: "Plan", targets: tuple[str, ...]) -> str:
    if not targets:
        return f"{len(plan.layers)} quantized layers; no deployment target asks for integers."
    integer = sum(layer.integer for layer in plan.layers)
    count = f"{integer}/{len(plan.layers)}"
    return f"{count} convolutions and linear layers planned as integer for {', '.join(targets)}."


def _plan(recipe: "Recipe", quant: "Quant", classes: int | None) -> "Plan":
    from saq_qat.data.open import open_data
    from saq_qat.models.build import build_model
    from saq_qat.quant.network import plan_network

    if classes is None:
        classes = len(open_data(recipe.data, recipe.seed).classes)
    untrained = recipe.model.model_copy(update={"pretrained": None})
    _, plan = plan_network(build_model(untrained, classes), quant, recipe.deploy.targets)
    return plan


def _print_layers(plan: "Plan") -> None:
    rows = [
        (
            layer.name,
            f"{layer.op} {layer.kind}",
            str(layer.bits),
            layer.grid.describe(),
            "normalised" + (", rescaled" if layer.rescale_std else "") if layer.normalize else "",
            layer.input or "float",
            layer.output or "float",
            "integer" if layer.integer else f"float: {layer.float_reason}",
        )
        for layer in plan.layers
    ]
    table(("layer", "weight", "bits", "codes", "", "input", "output", "runs as"), rows, title="Weights")


def _print_tensors(plan: "Plan") -> None:
    rows = [
        (
            tensor.name,
            tensor.role,
            tensor.kind,
            str(tensor.bits),
            tensor.grid.describe(),
            tensor.requantizes or tensor.after,
            ", ".join(tensor.consumers),
        )
        for tensor in plan.tensors
    ]
    table(("tensor", "role", "kind", "bits", "codes", "quantizes", "read by"), rows, title="\nActivations")
    typer.echo("")
