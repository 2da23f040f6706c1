"""The graph of a convolutional network written from its deploy view, without a trace of torch's own.

``torch.onnx.export`` takes a network through three tracers to find out which operations it consists of, which
lasts seconds and needs torch's compiler. The deploy view of a convolutional network says so itself. Nodes,
names and constants are those of torch.onnx; a view with any other operation than these is left to it.
"""

import operator
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, fx, nn

from saq_qat.quant.deploy import ops
from saq_qat.quant.deploy.integer_modules import IntegerConv2d, IntegerLinear, Quantize
from saq_qat.quant.trace.graph import module_of
from saq_qat_export.graph.patterns.shared import TargetPatterns
from saq_qat_export.graph.tape import BATCH, Operators, Recording, Shape, shape_of

__all__ = ["write_directly"]

_IR_VERSION = 10
_IMAGE_RANK, _ROWS_RANK = 4, 2
_FLOAT, _UINT8, _INT8, _INT64 = (
    ir.DataType.FLOAT,
    ir.DataType.UINT8,
    ir.DataType.INT8,
    ir.DataType.INT64,
)


class _OtherOperationError(Exception):
    """The view has an operation that is not written here."""


def write_directly(
    view: fx.GraphModule, image: ir.Value, result: str, opset: int, patterns: type[TargetPatterns]
) -> ir.Model | None:
    """The model as ``torch.onnx.export(optimize=False)`` gives it; None if the view has other operations.

    Args:
        view: float32 deploy view.
        image: the graph's input, (N, C, H, W).
        result: name of the graph's output.
    """
    try:
        return _Writer(view, opset, patterns).write(image, result)
    except _OtherOperationError:
        return None


class _Writer:
    def __init__(self, view: fx.GraphModule, opset: int, patterns: type[TargetPatterns]) -> None:
        self._view, self._opset = view, opset
        self._op = Operators(opset)
        self._patterns = patterns(self._op)
        self._result = Recording(self._op).result
        self._parameters = _parameters(view)
        self._values: dict[fx.Node, ir.Value] = {}

    def write(self, image: ir.Value, result: str) -> ir.Model:
        batch = self._op.Squeeze(self._op.Shape(image, start=0, end=1))
        self._batch = self._result("sym_size_int_1", batch, "", (), _INT64)
        for node in self._view.graph.nodes:
            if node.op == "placeholder":
                self._values[node] = image
            elif node.op != "output":
                self._values[node] = self._value(node)
        logits = self._values[node.all_input_nodes[0]]
        logits.name = result
        parameters, opsets = tuple(self._parameters.values()), {"": self._opset}
        graph = ir.Graph(
            [image], [logits], nodes=self._op.nodes, initializers=parameters, opset_imports=opsets
        )
        return ir.Model(graph, ir_version=_IR_VERSION)

    def _value(self, node: fx.Node) -> ir.Value:
        match module_of(self._view, node):
            case Quantize() as module:
                return self._quantize(node, module)
            case IntegerConv2d() as module:
                return self._convolution(node, module)
            case IntegerLinear() as module:
                return self._linear(node, module)
            case nn.MaxPool2d(ceil_mode=False, return_indices=False) as module:
                return self._max_pool(node, module)
            case nn.Flatten(start_dim=1, end_dim=-1):
                return self._flatten(self._source(node, _IMAGE_RANK), str(node.target))
        if node.op == "get_attr" and node.target in self._parameters:
            return self._parameters[node.target]
        if node.op == "call_function" and not node.kwargs:
            return self._function(node)
        raise _OtherOperationError

    def _function(self, node: fx.Node) -> ir.Value:
        scope, others = _scope(node), node.args[1:]
        if node.target is ops.DEQUANTIZE:
            stored, scale = (self._values[term] for term in node.all_input_nodes)
            floats = self._patterns.dequantize(stored, scale, int(str(node.args[2])))
            return self._result("dequantize", floats, scope, shape_of(stored))
        if node.target in (operator.add, torch.add):
            return self._add(node, scope)
        if node.target is ops.GLOBAL_AVERAGE_POOL:
            x = self._source(node, _IMAGE_RANK)
            shape = (*shape_of(x)[:2], 1, 1)
            return self._result("global_average_pool", self._patterns.global_average_pool(x), scope, shape)
        if node.target is torch.flatten and others == (1,):
            return self._flatten(self._source(node, _IMAGE_RANK, *others), scope)
        raise _OtherOperationError

    def _quantize(self, node: fx.Node, module: Quantize) -> ir.Value:
        x, path = self._source(node), str(node.target)
        scale, (low, high) = self._parameters[f"{path}.scale"], module.stored_bounds
        if module.stored == "int8":
            codes = self._patterns.quantize_int8(x, scale, low, high)
            return self._result("quantize_int8", codes, path, shape_of(x), _INT8)
        codes = self._patterns.quantize(x, scale, module.zero_point, low, high)
        return self._result("quantize", codes, path, shape_of(x), _UINT8)

    def _convolution(self, node: fx.Node, module: IntegerConv2d) -> ir.Value:
        x, path = self._source(node, _IMAGE_RANK), str(node.target)
        out, _, *kernel = module.weight.shape
        written = self._op.Conv(
            x,
            self._dequantized(path, "weight"),
            self._dequantized(path, "bias"),
            auto_pad="NOTSET",
            dilations=module.dilation,
            group=module.groups,
            kernel_shape=kernel,
            pads=(*module.padding, *module.padding),
            strides=module.stride,
        )
        size = _slid(shape_of(x)[2:], kernel, module.stride, module.padding, module.dilation)
        return self._result("conv2d", written, path, (BATCH, out, *size))

    def _linear(self, node: fx.Node, module: IntegerLinear) -> ir.Value:
        x, path = self._source(node, _ROWS_RANK), str(node.target)
        weight, bias = self._dequantized(path, "weight"), self._dequantized(path, "bias")
        written = self._op.Gemm(x, weight, bias, alpha=1.0, beta=1.0, transA=0, transB=1)
        return self._result("linear", written, path, (BATCH, module.weight.shape[0]))

    def _dequantized(self, path: str, name: str) -> ir.Value:
        """Weight or bias of a layer; a bias in float as it is."""
        codes, scale = self._parameters[f"{path}.{name}"], self._parameters.get(f"{path}.{name}_scale")
        if scale is None:
            return codes
        floats = self._patterns.dequantize_channels(codes, scale)
        return self._result("dequantize_channels", floats, path, shape_of(codes))

    def _max_pool(self, node: fx.Node, module: nn.MaxPool2d) -> ir.Value:
        x = self._source(node, _IMAGE_RANK)
        kernel, stride, padding, dilation = (
            (sizes, sizes) if isinstance(sizes, int) else tuple(sizes)
            for sizes in (module.kernel_size, module.stride, module.padding, module.dilation)
        )
        written = self._op.MaxPool(
            x, ceil_mode=0, dilations=dilation, kernel_shape=kernel, pads=padding * 2, strides=stride
        )
        size = _slid(shape_of(x)[2:], kernel, stride, padding, dilation)
        return self._result("max_pool2d", written, str(node.target), (*shape_of(x)[:2], *size))

    def _add(self, node: fx.Node, scope: str) -> ir.Value:
        terms = [self._values[term] for term in node.all_input_nodes]
        if list(node.args) != node.all_input_nodes or len({shape_of(term) for term in terms}) != 1:
            raise _OtherOperationError
        return self._result("add", self._op.Add(*terms), scope, shape_of(terms[0]))

    def _flatten(self, x: ir.Value, scope: str) -> ir.Value:
        _, channels, rows, columns = (int(size) if size != BATCH else 0 for size in shape_of(x))
        width = channels * rows * columns
        batch = self._op.Reshape(self._batch, self._op.Constant(value_ints=[-1]), allowzero=0)
        shape = self._op.Concat(batch, self._op.Constant(value_ints=[width]), axis=0)
        dtype = x.dtype or _FLOAT
        return self._result("view", self._op.Reshape(x, shape, allowzero=1), scope, (BATCH, width), dtype)

    def _source(self, node: fx.Node, rank: int | None = None, *others: Any) -> ir.Value:
        """What a call reads that has one tensor, and these other arguments."""
        if node.args != (*node.all_input_nodes, *others) or len(node.all_input_nodes) != 1 or node.kwargs:
            raise _OtherOperationError
        value = self._values[node.all_input_nodes[0]]
        if rank is not None and len(shape_of(value)) != rank:
            raise _OtherOperationError
        return value


def _parameters(view: fx.GraphModule) -> dict[str, ir.Value]:
    """Initializers by name, each tensor of one module alone."""
    tensors = (*view.named_parameters(remove_duplicate=False), *view.named_buffers(remove_duplicate=False))
    if len({id(tensor) for _, tensor in tensors}) < len(tensors):
        raise _OtherOperationError
    return {name: _initializer(name, tensor) for name, tensor in tensors}


def _initializer(name: str, tensor: Tensor) -> ir.Value:
    array = ir.tensor(tensor.detach().numpy(), name=name)
    shape, kind = ir.Shape(tuple(tensor.shape)), ir.TensorType(array.dtype)
    return ir.Value(name=name, const_value=array, shape=shape, type=kind)


def _scope(node: fx.Node) -> str:
    """Path of the module that a function was called in."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack else ""


def _slid(sizes: Shape, kernel: Any, stride: Any, padding: Any, dilation: Any) -> list[int]:
    """Height and width behind a window that moves over an image."""
    moves = zip(sizes, kernel, stride, padding, dilation, strict=True)
    return [
        (int(size) + 2 * pad - step * (width - 1) - 1) // pace + 1 for size, width, pace, pad, step in moves
    ]
