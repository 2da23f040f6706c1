"""The JSON schema that editors use agrees with the models that decide."""

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft7Validator

from saq_qat.errors import RecipeError
from saq_qat.recipe.json_schema import recipe_json_schema
from saq_qat.recipe.load import parse_recipe
from saq_qat.recipe.templates import template_text, templates
from saq_qat.recipe.yaml_tree import read_yaml


@pytest.fixture(scope="module")
def validator() -> Draft7Validator:
    return Draft7Validator(recipe_json_schema())


def test_is_a_draft_7_schema() -> None:
    schema = recipe_json_schema()
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    Draft7Validator.check_schema(schema)


@pytest.mark.parametrize("name", templates())
def test_accepts_every_template(validator: Draft7Validator, name: str) -> None:
    assert list(validator.iter_errors(read_yaml(template_text(name), name).value)) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("momentum", "momentun"),
        ("kind: sgd", "kind: sgdm"),
        ("kind: saq, rho: 0.1", "kind: saq"),
        ("bits: 4", "bits: 9"),
        ("lr: 0.1", "lr: 0"),
        ("lr: 0.1", "lr: '0.1'"),
        ("version: 1", "version: 2"),
        ("kind: digits", "kind: cifar10"),
        ("  optimizer", "  betas: [0.9]\n  optimizer"),
    ],
)
def test_refuses_what_the_models_refuse(validator: Draft7Validator, text: str, old: str, new: str) -> None:
    assert old in text
    changed = text.replace(old, new)
    with pytest.raises(RecipeError):
        parse_recipe(changed, "r")
    assert not validator.is_valid(read_yaml(changed, "r").value)


def test_a_tuple_of_fixed_length_keeps_its_length(validator: Draft7Validator, text: str) -> None:
    adamw = text.replace("kind: sgd\n    momentum: 0.9", "kind: adamw\n    betas: [0.9, 0.99]")
    assert validator.is_valid(read_yaml(adamw, "r").value)
    for betas in ("[0.9]", "[0.9, 0.99, 0.999]", "[0.9, 1.5]"):
        assert not validator.is_valid(read_yaml(adamw.replace("[0.9, 0.99]", betas), "r").value)


def test_every_key_is_described_and_every_section_is_closed() -> None:
    schema = recipe_json_schema()
    for name, section in {"recipe": schema, **schema["definitions"]}.items():
        assert section["additionalProperties"] is False, name
        assert section["description"], name
        for key, field in section["properties"].items():
            assert list(_descriptions(field, schema)), f"{name}.{key}"


def _descriptions(field: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    if "description" in field:
        yield field["description"]
    for part in field.get("allOf", ()):
        yield schema["definitions"][part["$ref"].rsplit("/", 1)[1]]["description"]
