"""`saq-qat init`: write a recipe to start from."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["init"]

SCHEMA_FILE = "saq-recipe.schema.json"


def init(
    recipe: Annotated[Path, typer.Argument(help="The file to write.")] = Path("recipe.yaml"),
    template: Annotated[str, typer.Option("--template", "-t", help="Starter recipe to copy.")] = "digits",
    list_templates: Annotated[bool, typer.Option("--list", help="List the starter recipes.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing recipe.")] = False,
) -> None:
    """Write a starter recipe, and beside it the schema that lets editors complete and check it."""
    import json

    from saq_qat.errors import RecipeError
    from saq_qat.recipe.json_schema import recipe_json_schema
    from saq_qat.recipe.templates import template_summary, template_text, templates

    if list_templates:
        width = max(map(len, templates()))
        for name in templates():
            typer.echo(f"{name:{width}}  {template_summary(name)}")
        return
    text = template_text(template)
    if recipe.exists() and not force:
        raise RecipeError(f"{recipe} exists already; give another name, or --force to overwrite it")
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(text, encoding="utf-8")
    schema_file = recipe.with_name(SCHEMA_FILE)
    schema_file.write_text(json.dumps(recipe_json_schema(), indent=2) + "\n", encoding="utf-8")
    typer.echo(f"wrote {recipe} (template {template}) and {schema_file} (for editors)")
    typer.echo(f"next: saq-qat check {recipe}")
