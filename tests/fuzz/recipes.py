"""Recipes and overrides as text: a RecipeError, or a recipe that reads back as it was read."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from ruamel.yaml import YAML

from saq_qat.analysis.study.schema import load_study
from saq_qat.errors import RecipeError
from saq_qat.recipe.json_schema import recipe_json_schema
from saq_qat.recipe.load import dump_recipe, load_recipe, parse_recipe
from tests.fuzz.mutate import ODD_VALUES, damaged_bytes, damaged_text, damaged_tree, json_paths
from tests.fuzz.surface import Case, Surface

__all__ = ["SURFACE"]

CONFIGS = Path(__file__).parents[2] / "configs"


def _words(schema: Any) -> list[str]:
    """Every key, and every value that stands in a list of values, of the schema."""
    found: set[str] = set()
    for path in json_paths(schema):
        if path[-2:-1] == ("properties",):
            found.add(str(path[-1]))
        if path[-1] in ("enum", "const"):
            value = schema
            for key in path:
                value = value[key]
            found.update(str(each) for each in (value if isinstance(value, list) else [value]))
    return sorted(found)


def _written(tree: Any) -> str:
    """JSON, which is YAML too, but for the numbers that are none."""
    text = json.dumps(tree)
    for json_name, yaml_name in (("-Infinity", "-.inf"), ("Infinity", ".inf"), ("NaN", ".nan")):
        text = text.replace(json_name, yaml_name)
    return text


def _text(random: Random, text: str, words: list[str]) -> str:
    """A recipe whose data or whose spelling is harmed."""
    if random.random() < 0.6:
        known = (*ODD_VALUES, *words)
        tree = damaged_tree(random, YAML(typ="safe", pure=True).load(text), known)
        text = _written(tree)
        return text if random.random() < 0.8 else damaged_text(random, text)
    return damaged_text(random, text)


def _override(random: Random, recipe: str, words: list[str]) -> str:
    paths = json_paths(YAML(typ="safe", pure=True).load(recipe))
    path = ".".join(map(str, random.choice(paths)))
    value = random.choice((*map(str, random.sample(ODD_VALUES, 3)), *random.sample(words, 3), "{}", "[]"))
    override = f"{path}={value}"
    return damaged_text(random, override) if random.random() < 0.4 else override


@contextmanager
def _opened(folder: Path) -> Iterator[Case]:
    recipes = sorted(CONFIGS.glob("*/*.yaml"))
    texts = {path: path.read_text() for path in recipes}
    words = _words(recipe_json_schema())
    place = folder / "input.yaml"

    def case(random: Random) -> str:
        path = random.choice(recipes)
        content = _text(random, texts[path], words).encode(errors="surrogatepass")
        content = damaged_bytes(random, content) if random.random() < 0.1 else content
        overrides = [_override(random, texts[path], words) for _ in range(random.choice((0, 0, 0, 1, 2)))]
        if overrides and random.random() < 0.7:
            content = texts[path].encode()
        place.write_bytes(content)
        (folder / "overrides.json").write_text(json.dumps(overrides))
        try:
            if path.parent.name == "studies" and not overrides:
                load_study(place)
                return "a study"
            recipe = load_recipe(place, overrides)
        except RecipeError as error:
            assert str(error).strip() and len(str(error)) < 100_000
            return "refused"
        assert parse_recipe(dump_recipe(recipe), "again") == recipe
        return "a recipe"

    yield case


SURFACE = Surface("recipes", _opened, seconds=20.0)
