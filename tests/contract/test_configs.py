"""Every shipped recipe is valid, says how to run it, and satisfies the schema that editors use."""

from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from saq_qat.recipe.json_schema import recipe_json_schema
from saq_qat.recipe.load import dump_recipe, load_recipe, parse_recipe
from saq_qat.recipe.yaml_tree import read_yaml

CONFIGS = Path(__file__).parents[2] / "configs"
RECIPES = sorted(CONFIGS.rglob("*.yaml"))
VALIDATOR = Draft7Validator(recipe_json_schema())


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(CONFIGS)))
def test_a_shipped_recipe_is_valid_and_documented(path: Path) -> None:
    recipe = load_recipe(path)
    assert parse_recipe(dump_recipe(recipe), "dumped") == recipe
    text = path.read_text(encoding="utf-8")
    assert [error.message for error in VALIDATOR.iter_errors(read_yaml(text, path.name).value)] == []
    assert text.startswith("#"), "a recipe starts with a comment: what it does and how to run it"
    assert f"saq-qat train configs/{path.relative_to(CONFIGS)}" in text


def test_names_of_runs_do_not_collide() -> None:
    names = [load_recipe(path).name for path in RECIPES]
    assert len(set(names)) == len(names)


def test_only_recipes_stand_in_configs() -> None:
    assert list(CONFIGS.rglob("*.yml")) == []
