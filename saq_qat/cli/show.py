"""`saq-qat show`: the recipe with every default written out."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["show"]


def show(
    recipe: Annotated[Path, typer.Argument(help="The recipe's file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Values to set, as train.stages.0.lr=0.01."),
    ] = None,
) -> None:
    """Check a recipe and print it as YAML with overrides and all defaults."""
    from saq_qat.recipe.load import dump_recipe, load_recipe

    typer.echo(dump_recipe(load_recipe(recipe, overrides or ())), nl=False)
