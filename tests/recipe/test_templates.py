"""Every starter recipe is a valid recipe, commented, and lets an editor complete it."""

import re

import pytest

from saq_qat.errors import RecipeError
from saq_qat.recipe.load import parse_recipe
from saq_qat.recipe.schema import DeployStage, QuantizedStage
from saq_qat.recipe.templates import template_summary, template_text, templates


@pytest.mark.parametrize("name", templates())
def test_every_template_is_a_recipe(name: str) -> None:
    text = template_text(name)
    parse_recipe(text, name)
    assert text.startswith("# yaml-language-server: $schema=saq-recipe.schema.json\n")
    assert template_summary(name).endswith(".")


def suggested(text: str) -> str:
    """The text with its keys that are commented out; one below a line of the same key stands in its place."""
    text = re.sub(r"^( +)(\w+): .*\n\1# (\2: \{.*)$", r"\1\3", text, flags=re.MULTILINE)
    return re.sub(r"^( +)# (\w+: \{.*)$", r"\1\2", text, flags=re.MULTILINE)


def methods(text: str) -> list[str]:
    """Of the stages that are quantized or deployed."""
    stages = parse_recipe(text, "template").train.stages
    return [stage.method.kind for stage in stages if isinstance(stage, QuantizedStage | DeployStage)]


@pytest.mark.parametrize("name", templates())
def test_what_a_template_suggests_in_comments_is_valid_too(name: str) -> None:
    text = template_text(name)
    assert parse_recipe(suggested(text), name) != parse_recipe(text, name) or suggested(text) == text


@pytest.mark.parametrize("name", [name for name in templates() if name != "full-precision"])
def test_a_quantized_template_trains_plainly_and_has_the_sharpness_aware_method_beside_it(name: str) -> None:
    text = template_text(name)
    assert methods(text) == ["plain", "plain"]
    assert methods(suggested(text)) == ["saq", "plain"]
    assert "docs/studies.md" in text, "where the reader finds how to search rho, and what was measured"


def test_there_are_templates() -> None:
    assert {"digits", "cifar10", "imagefolder"} <= set(templates())


@pytest.mark.parametrize("name", ["digit", "../schema/base", ""])
def test_an_unknown_template_gets_the_list(name: str) -> None:
    with pytest.raises(RecipeError, match="choose from cifar10, digits"):
        template_text(name)
