"""The recipe's JSON schema, in the draft that editors of YAML understand."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from saq_qat.recipe.schema import Recipe

__all__ = ["recipe_json_schema"]

DRAFT = "http://json-schema.org/draft-07/schema#"


class _Draft7(GenerateJsonSchema):
    """Pydantic writes draft 2020-12; draft 7 says some things in other words."""

    def tuple_schema(self, schema: core_schema.TupleSchema) -> JsonSchemaValue:
        """A tuple of fixed length lists its items under `items`."""
        json_schema = super().tuple_schema(schema)
        if "prefixItems" in json_schema:
            json_schema["items"] = json_schema.pop("prefixItems")
            json_schema["additionalItems"] = False
        return json_schema

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Keys are their own titles."""
        return False


def recipe_json_schema() -> dict[str, Any]:
    """Schema of `recipe.yaml`: every key described, unknown keys refused, sections told apart by `kind`."""
    schema = Recipe.model_json_schema(schema_generator=_Draft7, ref_template="#/definitions/{model}")
    definitions = schema.pop("$defs")
    return {"$schema": DRAFT, **_draft7(schema), "definitions": _draft7(definitions)}


def _draft7(node: Any) -> Any:
    """Without OpenAPI's `discriminator`, and with references that keep their descriptions."""
    if isinstance(node, list):
        return [_draft7(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: _draft7(value) for key, value in node.items() if key != "discriminator"}
    if "$ref" in node and len(node) > 1:  # draft 7 ignores what stands beside a reference
        return {"allOf": [{"$ref": node.pop("$ref")}], **node}
    return node
