"""Every shipped recipe and study is valid and says how to run it; recipes satisfy the schema of editors."""

from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from saq_qat.analysis.study.arms import resolve_arms
from saq_qat.analysis.study.schema import load_study
from saq_qat.recipe.json_schema import recipe_json_schema
from saq_qat.recipe.load import dump_recipe, load_recipe, parse_recipe
from saq_qat.recipe.yaml_tree import read_yaml

CONFIGS = Path(__file__).parents[2] / "configs"
STUDIES = sorted((CONFIGS / "studies").glob("*.yaml"))
RECIPES = sorted(set(CONFIGS.rglob("*.yaml")) - set(STUDIES))
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


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_a_shipped_study_is_valid_and_documented_and_its_arms_differ_in_what_they_name(path: Path) -> None:
    study = load_study(path)
    assert resolve_arms(study, path.parent).keys() == study.arms.keys()
    text = path.read_text(encoding="utf-8")
    assert text.startswith("#"), "a study starts with a comment: what it asks and how to run it"
    assert f"saq-qat study configs/studies/{path.name}" in text


@pytest.mark.parametrize(
    "path",
    # That of the quickstart shows how a study is written, and is evidence of nothing.
    [path for path in STUDIES if path.stem != "quickstart"],
    ids=lambda path: path.name,
)
def test_a_shipped_study_says_whether_it_was_run_and_trains_what_it_judges(path: Path) -> None:
    """A search is judged by its fake-quant networks; all others by integers, which a deploy stage trains."""
    header = path.read_text(encoding="utf-8").partition("\nversion:")[0]
    assert ("measured" in header.lower()) != ("Not run" in header)
    for arm in resolve_arms(load_study(path), path.parent).values():
        assert arm.recipe.train.stages[-1].kind == "deploy" or "-search-" in path.stem


def test_names_of_studies_are_those_of_their_files() -> None:
    assert [load_study(path).name for path in STUDIES] == [path.stem for path in STUDIES]


def test_only_recipes_and_studies_stand_in_configs() -> None:
    assert list(CONFIGS.rglob("*.yml")) == []
