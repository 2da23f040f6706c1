"""`saq-qat schema`: the recipe's JSON schema."""

import typer

__all__ = ["schema"]


def schema() -> None:
    """Print the JSON schema of recipes, for editors: `saq-qat schema > saq-recipe.schema.json`."""
    import json

    from saq_qat.recipe.json_schema import recipe_json_schema

    typer.echo(json.dumps(recipe_json_schema(), indent=2))
