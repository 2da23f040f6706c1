"""ONNX nodes written by calls, named and scoped as ``torch.onnx.export`` names and scopes them."""

from collections.abc import Callable
from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.tape import Tape

from saq_qat_export.graph.passes.names import SCOPES

__all__ = ["BATCH", "Operators", "Recording", "Shape", "shape_of"]

BATCH = "N"
"""The size of an axis that the file leaves open."""

Shape = tuple[int | str, ...]


class Operators:
    """ONNX operators by name, as onnxscript's operator sets have them: a call writes a node.

    Attributes that are not given are written with their defaults, in the order of the operator's schema; of
    several outputs the first is handed on.
    """

    def __init__(self, opset: int) -> None:
        self._opset = opset
        self._schemas: dict[str, onnx.defs.OpSchema] = {}
        self._tape = Tape()

    @property
    def nodes(self) -> list[ir.Node]:
        """All that were written, in their order."""
        return list(self._tape.nodes)

    def __getattr__(self, op_type: str) -> Callable[..., ir.Value]:
        if op_type not in self._schemas:
            self._schemas[op_type] = onnx.defs.get_schema(op_type, self._opset)
        schema = self._schemas[op_type]

        def write(*inputs: ir.Value, **given: Any) -> ir.Value:
            attributes: dict[str, Any] = {}
            for name, attribute in schema.attributes.items():
                if name in given:
                    attributes[name] = given[name]
                elif attribute.default_value.type:
                    attributes[name] = ir.from_proto(attribute.default_value)
            first, *_ = self._tape.op_multi_out(
                op_type, inputs, attributes, num_outputs=schema.max_output, version=self._opset
            )
            return first

        return write


class Recording:
    """Gives values the names that torch.onnx would: after torch's operators where one of them ends, else by
    number.
    """

    def __init__(self, operators: Operators) -> None:
        self._operators = operators
        self._calls: dict[str, int] = {}
        self._written = self._unnamed = 0

    def result(
        self, called: str, value: ir.Value, scope: str, shape: Shape, dtype: ir.DataType = ir.DataType.FLOAT
    ) -> ir.Value:
        """What one call of torch gave, with all nodes since the last one.

        Args:
            called: torch's name of the operator.
            scope: path of the module it was called in.
        """
        count = self._calls[called] = self._calls.get(called, -1) + 1
        value.name = f"{called}_{count}" if count else called
        value.shape, value.type = ir.Shape(shape), ir.TensorType(dtype)
        nodes = self._operators.nodes
        for node in nodes[self._written :]:
            node.metadata_props[SCOPES] = repr([scope, called])
            for output in node.outputs:
                if output.name is None:
                    output.name = f"val_{self._unnamed}"
                    self._unnamed += 1
        self._written = len(nodes)
        return value


def shape_of(value: ir.Value) -> Shape:
    """Sizes of a value that ``Recording`` named, or of a constant.

    Raises:
        ValueError: it has no shape.
    """
    if value.shape is None:
        raise ValueError(f"{value.name}: no shape was written with it")
    return tuple(size if isinstance(size, int) else BATCH for size in value.shape)
