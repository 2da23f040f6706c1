"""Small graphs for the lint's tests, one operator per line, in the form of our own exporter."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from saq_qat_export.lint import LintSettings, lint

Array = npt.NDArray[Any]
Shape = Sequence[int | str | None]

__all__ = ["Net", "rules"]

NO_SETTINGS = LintSettings()


def rules(model: onnx.ModelProto, *levels: str, settings: LintSettings = NO_SETTINGS) -> list[str]:
    """Rules of the findings in their order, those of float32 between the layers left out."""
    wanted = levels or ("error", "warning", "note")
    return [f.rule for f in lint(model, settings) if f.level in wanted and f.rule != "TRT114"]


class Net:
    """An ONNX graph under construction; every method adds a node and returns the name of what it writes.

    Defaults give good graphs: opset 19, float32, int8 codes with zero point 0, rank-0 activation scales.
    """

    def __init__(self, opset: int = 19) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.functions: list[onnx.FunctionProto] = []

    def input(self, shape: Shape, name: str = "image", dtype: int = TensorProto.FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = f"stored{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype=dtype), name))
        return name

    def node(self, op: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> str:
        """Any operator; the name of its first output."""
        name = f"{op.lower()}{len(self.nodes)}"
        written = [name, *(f"{name}_{index}" for index in range(1, outputs))]
        self.nodes.append(helper.make_node(op, inputs, written, name=name, domain=domain, **attributes))
        return name

    def quantize(
        self, x: str, scale: Any = 0.1, zero: Any = 0, dtype: Any = np.int8, precision: Any = np.float32,
        **attributes: Any,
    ) -> str:  # fmt: skip  # one value a line is a page
        """``scale`` and ``zero``: number, array or name of a tensor; ``zero`` None for no zero point."""
        return self._linear("QuantizeLinear", x, scale, zero, dtype, precision, attributes)

    def dequantize(
        self, x: str, scale: Any = 0.1, zero: Any = 0, dtype: Any = np.int8, precision: Any = np.float32,
        **attributes: Any,
    ) -> str:  # fmt: skip  # one value a line is a page
        return self._linear("DequantizeLinear", x, scale, zero, dtype, precision, attributes)

    def _linear(
        self, op: str, x: str, scale: Any, zero: Any, dtype: Any, precision: Any, attributes: dict[str, Any]
    ) -> str:
        scale = scale if isinstance(scale, str) else self.constant(scale, precision)
        inputs = [x, scale]
        if zero is not None:
            shape = next((tuple(tensor.dims) for tensor in self.constants if tensor.name == scale), ())
            inputs.append(zero if isinstance(zero, str) else self.constant(np.full(shape, zero), dtype))
        return self.node(op, *inputs, **attributes)

    def pair(self, x: str, scale: Any = 0.1, **options: Any) -> str:
        """QuantizeLinear, DequantizeLinear."""
        shared = (
            scale if isinstance(scale, str) else self.constant(scale, options.get("precision", np.float32))
        )
        return self.dequantize(self.quantize(x, shared, **options), shared, **options)

    def weight(self, *shape: int, axis: int = 0, precision: Any = np.float32) -> str:
        """int8 weights and their DequantizeLinear, one scale for each index of ``axis``."""
        codes = self.constant(np.arange(np.prod(shape)).reshape(shape) % 251 - 125, np.int8)
        return self.dequantize(codes, np.full(shape[axis], 0.01), axis=axis, precision=precision)

    def floats(self, *shape: int, dtype: Any = np.float32) -> str:
        """Float weights or a bias."""
        return self.constant(np.linspace(-1, 1, int(np.prod(shape))).reshape(shape), dtype)

    def conv(self, x: str, channels: int = 16, filters: int = 16, kernel: int = 3, **attributes: Any) -> str:
        """Conv with int8 weights and float bias, same size out as in."""
        group = attributes.get("group", 1)
        weight = self.weight(filters, channels // group, kernel, kernel)
        return self.node("Conv", x, weight, self.floats(filters), pads=[kernel // 2] * 4, **attributes)

    def model(self, *outputs: str, dtype: int = TensorProto.FLOAT, **options: Any) -> onnx.ModelProto:
        """The model that writes ``outputs``, their shapes left to shape inference."""
        written = [helper.make_tensor_value_info(name, dtype, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "net", self.inputs, written, self.constants)
        opsets = [helper.make_opsetid("", self.opset)]
        domains = {node.domain for node in self.nodes if node.domain}
        opsets += [helper.make_opsetid(domain, 1) for domain in sorted(domains)]
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=10, functions=self.functions, **options
        )
