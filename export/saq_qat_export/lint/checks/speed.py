"""What is legal but slow, and what is good to know before timing an engine."""

from collections.abc import Iterator
from math import prod

import onnx_ir as ir

from saq_qat_export.lint.nodes import consumers, dimensions, is_standard, moves, operand, result
from saq_qat_export.lint.quantization import QUANTIZED_TYPES
from saq_qat_export.lint.settings import LintSettings
from saq_qat_export.lint.trace import downstream, upstream
from saq_qat_export.lint.view import GraphView, Violation
from saq_qat_export.lint.weighted import WeightedNode

__all__ = [
    "accumulator",
    "attention",
    "few_channels",
    "float32_between",
    "slow_kinds",
    "small_layers",
]

_SMALLEST = 16
_MULTIPLE = 8
_PADDED_INPUT = 4
_SMALLEST_DEPTHWISE_KERNEL = 3
_LARGEST_PRODUCT = 128 * 127
_SCORES = ("Add", "Cast", "Clip", "Div", "Max", "Mul", "Sub", "Where")


def small_layers(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT109: quantized layers have enough channels for int8 to pay (limits of NVIDIA's ModelOptimizer).

    Warning, but a note for products of a single row, which are none with a larger batch, and for those that
    write the graph's output: a network has as many classes as it has.
    """
    for item in view.weighted:
        channels = item.channels
        if not item.quantized or channels is None:
            continue
        inputs, outputs = channels
        rows = (dimensions(item.data) or (None,))[-2:-1]
        fix = "Leave this layer in float if time matters more than one number format throughout."
        if item.is_convolution and not _convolution_pays(view, item, inputs, outputs):
            message = f"{inputs} input and {outputs} output channels: too few for int8 to beat float16."
            yield Violation(item.node, message, fix)
        elif not item.is_convolution and min(inputs, outputs) < _SMALLEST:
            message = f"a product with {inputs} by {outputs} weights is too small for int8 to beat float16."
            head = any(value in view.graph.outputs for value in item.node.outputs)
            yield Violation(item.node, message, "" if head else fix, "note" if head else None)
        elif not item.is_convolution and rows == (1,):
            message = "its data has one row: a matrix times a vector reads weights more than it computes."
            yield Violation(item.node, message, "Expect little from int8 at batch 1.", "note")


def _convolution_pays(view: GraphView, item: WeightedNode, inputs: int, outputs: int) -> bool:
    kernel = (item.shape or ())[2:]
    if min(inputs, outputs) >= _SMALLEST:
        return True
    if item.group > 1:
        return outputs % _MULTIPLE == 0 and min(kernel, default=0) >= _SMALLEST_DEPTHWISE_KERNEL
    wide = max(inputs, outputs) >= _SMALLEST or _reads_graph_input(view, item)
    return wide and (outputs % _MULTIPLE == 0 or inputs % _MULTIPLE == 0) and len(set(kernel)) == 1


def _reads_graph_input(view: GraphView, item: WeightedNode) -> bool:
    sources = (view.source_of(found) for found in item.origin.dequantized)
    return any(source is not None and source.data in view.inputs for source in sources)


def slow_kinds(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT110: no kinds of layers whose int8 kernels are slow or missing."""
    for item in view.weighted:
        if not item.quantized or not item.is_convolution:
            continue
        grouped = item.group > 1
        depthwise = grouped and (item.shape or (0, 0))[1] == 1
        if item.node.op_type == "ConvTranspose":
            message = "int8 ConvTranspose is slow or runs in float."
        elif grouped and not depthwise:
            message = "int8 convolutions in groups are often slower than in float16."
        elif depthwise and _is_silu_then_quantized(view, item):
            message = (
                "depthwise convolution, SiLU, QuantizeLinear: some versions have no int8 kernel for them."
            )
        else:
            continue
        yield Violation(
            item.node, message, "Time the layer in float16 too; exclude it from quantization if faster."
        )


def _is_silu_then_quantized(view: GraphView, item: WeightedNode) -> bool:
    value = result(item.node)
    readers = consumers(value)
    silu = [node for node in readers if is_standard(node, "Swish")]
    for gate in (node for node in readers if is_standard(node, "Sigmoid")):
        silu += [node for node in consumers(result(gate)) if node in readers and is_standard(node, "Mul")]
    return any(view.quantizers_of(result(node)) for node in silu)


def attention(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT111: attention (product, softmax, product) is quantized nowhere inside."""
    for node in view.nodes("Softmax"):
        above = list(upstream(operand(node, 0), lambda passed: _inside(passed, *_SCORES)))
        below = list(downstream(result(node), _inside))
        first = [passed for passed in above if _is_activation_product(view, passed)]
        second = [passed for passed in below if _is_activation_product(view, passed)]
        if not first or not second:
            continue
        inner = any(view.written_by(passed) is not None for passed in (*above, *below))
        quantized = [
            all(view.origin(value).quantized for value in _inputs(found)) for found in (first[0], second[0])
        ]
        if inner or quantized[0] != quantized[1]:
            yield Violation(
                node,
                "the attention around it is quantized inside, or one of its two products alone: TensorRT's "
                "fused attention kernel falls apart into single ones.",
                "Leave both products and the Softmax in float; quantize the linear layers around them.",
            )


def _inside(node: ir.Node, *more: str) -> bool:
    """Whether ``node`` may stand inside attention; Clip and Relu bound codes there."""
    passing = ("Cast", "Clip", "DequantizeLinear", "Dropout", "QuantizeLinear", "Relu")
    return moves(node) or is_standard(node, *passing, *more)


def _inputs(node: ir.Node) -> list[ir.Value]:
    return [value for value in node.inputs if value is not None]


def _is_activation_product(view: GraphView, node: ir.Node) -> bool:
    return is_standard(node, "MatMul") and not any(value in view.constants for value in _inputs(node))


def float32_between(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT114: what is not quantized runs in the type the graph states; float32 there is slow."""
    read = (f for f in view.quantization.values() if not f.quantizes and view.is_activation(f))
    if any(found.precision == ir.DataType.FLOAT and found.stored in QUANTIZED_TYPES for found in read):
        yield Violation(
            "model",
            "what runs between the quantized layers is float32, and TensorRT keeps the types of the graph: "
            "it will use float32 or TF32 there.",
            "Export with deploy.tensorrt.precision: float16, or convert the model to float16.",
        )


def accumulator(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT115: sums of products fit int32 for every possible code."""
    for item in view.weighted:
        shape, channels = item.shape, item.channels
        if not item.quantized or shape is None or channels is None:
            continue
        terms = channels[0] // item.group * prod(shape[2:]) if item.is_convolution else channels[0]
        if terms * _LARGEST_PRODUCT >= 2**31:
            message = f"sums {terms} products, which could leave int32 if all codes were extreme."
            yield Violation(item.node, message, "Split the layer if its inputs can be that large.")


def few_channels(view: GraphView, _: LintSettings) -> Iterator[Violation]:
    """TRT116: a convolution of an image is padded to four input channels."""
    for item in view.weighted:
        channels = item.channels
        if (
            item.quantized
            and item.is_convolution
            and item.group == 1
            and channels
            and channels[0] <= _PADDED_INPUT
        ):
            message = f"its {channels[0]} input channels are padded to {_PADDED_INPUT}, which is fine."
            yield Violation(item.node, message, "")
