"""Every starter recipe is a valid recipe, commented, and lets an editor complete it."""

import re

import pytest

from saq_qat.errors import RecipeError
from saq_qat.recipe.load import parse_recipe
from saq_qat.recipe.templates import template_summary, template_text, templates


@pytest.mark.parametrize("name", templates())
def test_every_template_is_a_recipe(name: str) -> None:
    text = template_text(name)
    parse_recipe(text, name)
    assert text.startswith("# yaml-language-server: $schema=saq-recipe.schema.json\n")
    assert template_summary(name).endswith(".")


@pytest.mark.parametrize("name", templates())
def test_what_a_template_suggests_in_comments_is_valid_too(name: str) -> None:
    text = template_text(name)
    suggested = re.sub(r"^( +)# (\w+: \{.*)$", r"\1\2", text, flags=re.MULTILINE)
    assert parse_recipe(suggested, name) != parse_recipe(text, name) or suggested == text


def test_there_are_templates() -> None:
    assert {"digits", "cifar10", "imagefolder"} <= set(templates())


@pytest.mark.parametrize("name", ["digit", "../schema/base", ""])
def test_an_unknown_template_gets_the_list(name: str) -> None:
    with pytest.raises(RecipeError, match="choose from cifar10, digits"):
        template_text(name)
