"""The list of operators that a bundle's model may have, beside what export writes and what ONNX defines."""

import ast
from collections.abc import Iterator
from pathlib import Path

import onnx.defs
import pytest

from saq_qat_export.graph.targets import GRAPH_TARGETS
from saq_qat_runtime.bundle.onnx_limits import OLDEST_OPSET
from saq_qat_runtime.bundle.onnx_operators import OPERATORS

GRAPH = Path(__file__).parents[2] / "export" / "saq_qat_export" / "graph"
ON_CPU = ("onnxruntime", "openvino")
"""Targets whose file the runtime opens itself; an engine of TensorRT is built from the other."""

NEWEST = {"Swish": 24}
"""Operators of later opsets than the one that is written today."""


def written() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each operator that the exporter's sources name, with the attributes given there."""
    for file in GRAPH.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            name, first = node.func.attr, node.args[0] if node.args else None
            if (
                isinstance(node.func.value, ast.Attribute)
                and node.func.value.attr == "_op"
                and name[0].isupper()
            ):
                yield name, tuple(str(keyword.arg) for keyword in node.keywords)
            elif name == "node" and isinstance(first, ast.Constant) and isinstance(first.value, str):
                given = [k.value for k in node.keywords if k.arg == "attributes"] + node.args[2:3]
                keys = [key for table in given if isinstance(table, ast.Dict) for key in table.keys]
                yield first.value, tuple(str(key.value) for key in keys if isinstance(key, ast.Constant))


def test_whatever_export_writes_by_itself_is_on_the_list() -> None:
    found = list(written())
    assert {"Conv", "Gemm", "QuantizeLinear", "DequantizeLinear", "Clip", "Where"} <= {
        name for name, _ in found
    }
    for name, attributes in found:
        assert name in OPERATORS, name
        assert set(attributes) <= OPERATORS[name].attributes, name


@pytest.mark.parametrize("name", OPERATORS)
def test_a_row_is_an_operator_of_onnx_with_attributes_of_its_own(name: str) -> None:
    schema = onnx.defs.get_schema(name, NEWEST.get(name, 23))
    assert OPERATORS[name].attributes <= set(schema.attributes)
    graphs = {
        key for key, value in schema.attributes.items() if value.type == onnx.defs.OpSchema.AttrType.GRAPH
    }
    assert not graphs


def test_every_opset_that_is_written_is_read() -> None:
    assert all(GRAPH_TARGETS[target].opset >= OLDEST_OPSET for target in ON_CPU)
