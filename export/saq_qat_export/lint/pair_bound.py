"""ORT005: no integer product of a file exceeds what kernels of x86 CPUs without VNNI add without saturating.

Such kernels multiply uint8 by int8 codes and add pairs of products in saturating int16 (``vpmaddubsw``). They
are exact while ``2 * largest stored first factor * largest second factor <= 32767``, whichever products they
pair; uint8 by uint8 is exact whatever the codes. Stored codes count, zero points included.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import onnx
import onnx.inliner
from onnx import TensorProto

from saq_qat.quant.numerics.grid import INT16_MAX, exceeds_pair_bound
from saq_qat.quant.plan.plan import Finding
from saq_qat_export.reference.code_ranges import OnnxTensors

__all__ = ["IntegerProduct", "integer_products", "is_for_tensorrt", "pair_finding", "pair_findings"]

# Operators on codes themselves: places of the two factors; None: quantized to uint8 inside.
_INTEGER_OPERATORS: dict[str, tuple[int | None, int]] = {
    "ConvInteger": (0, 1),
    "DynamicQuantizeMatMul": (None, 1),
    "MatMulInteger": (0, 1),
    "MatMulIntegerToFloat": (0, 1),
    "QAttention": (0, 1),
    "QGemm": (0, 3),
    "QLinearConv": (0, 3),
    "QLinearMatMul": (0, 3),
}
_FLOAT_OPERATORS = frozenset({"Conv", "ConvTranspose", "FusedMatMul", "Gemm", "MatMul"})
_LAYOUT = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_UINT8_MAX = 255
_INT8_SHIFT = 128


@dataclass(frozen=True)
class IntegerProduct:
    """A convolution or matrix product of two tensors of codes.

    Attributes:
        name: of its node; of what it writes where the node has none.
        largest_first: largest number that kernels store of the first factor.
        largest_second: largest magnitude stored of the second.
        saturates: kernels multiply uint8 by int8; without, nothing can saturate.
    """

    name: str
    first: str
    second: str
    largest_first: int
    largest_second: int
    saturates: bool

    @property
    def exceeds(self) -> bool:
        return self.saturates and exceeds_pair_bound(self.largest_first, self.largest_second)


def integer_products(model: onnx.ModelProto) -> tuple[IntegerProduct, ...]:
    """Every product of codes in graph order, of inner graphs and local functions too."""
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    tensors = OnnxTensors(model)
    found = (_product(node, tensors) for node in tensors.nodes)
    return tuple(product for product in found if product is not None)


def pair_findings(model: onnx.ModelProto) -> tuple[Finding, ...]:
    """An error for every integer product that exceeds the bound, in graph order."""
    return tuple(pair_finding(product) for product in integer_products(model) if product.exceeds)


def is_for_tensorrt(products: Sequence[IntegerProduct], model: onnx.ModelProto) -> bool:
    """Whether a file quantizes to int8 alone and leaves integer products to the engine: TensorRT's form."""
    tensors = OnnxTensors(model)
    quantized = [node.output[0] for node in tensors.nodes if node.op_type == "QuantizeLinear"]
    types = {tensors.stored_type(name) for name in quantized}
    operators = {node.op_type for node in tensors.nodes}
    return bool(products) and TensorProto.UINT8 not in types and not operators & _INTEGER_OPERATORS.keys()


def pair_finding(product: IntegerProduct) -> Finding:
    """What ORT005 says of a product that exceeds the bound."""
    first, second = product.largest_first, product.largest_second
    return Finding(
        "ORT005", "error", product.name,
        f"2 * {first} * {second} = {2 * first * second} (largest stored code of {product.first}, of "
        f"{product.second}) exceeds {INT16_MAX}: x86 CPUs without VNNI add pairs of products in saturating "
        "int16 and give other codes.",
        f"Keep the second factor within -{INT16_MAX // (2 * first)}..{INT16_MAX // (2 * first)}, store it as "
        "uint8, or export for CPUs with VNNI alone (deploy.onnxruntime.cpu: vnni).",
    )  # fmt: skip  # one value a line is a page


def _product(node: onnx.NodeProto, tensors: OnnxTensors) -> IntegerProduct | None:
    if node.op_type in _INTEGER_OPERATORS:
        first, second = _INTEGER_OPERATORS[node.op_type]
        return _measured(node, None if first is None else node.input[first], node.input[second], tensors)
    if node.op_type not in _FLOAT_OPERATORS:
        return None
    codes = [_codes_of(name, tensors) for name in node.input[:2]]
    if codes[0] is None or codes[1] is None or tensors.constant(codes[0]) is not None:
        return None
    return _measured(node, codes[0], codes[1], tensors)


def _codes_of(name: str, tensors: OnnxTensors) -> str | None:
    """The codes that a value was dequantized from, layout apart; None for floats."""
    node = tensors.producers.get(name)
    while node is not None and node.op_type in _LAYOUT:
        node = tensors.producers.get(node.input[0])
    return node.input[0] if node is not None and node.op_type == "DequantizeLinear" else None


def _measured(
    node: onnx.NodeProto, first: str | None, second: str, tensors: OnnxTensors
) -> IntegerProduct | None:
    types = [TensorProto.UINT8 if first is None else tensors.stored_type(first), tensors.stored_type(second)]
    if not set(types) <= {TensorProto.UINT8, TensorProto.INT8}:
        return None
    largest = _UINT8_MAX if first is None else int(tensors.interval(first).high)
    weights = tensors.interval(second)
    kind = _kernel(types[0], node, is_constant=tensors.constant(second) is not None)
    return IntegerProduct(
        node.name or node.output[0],
        first or node.input[0],
        second,
        largest + (_INT8_SHIFT if types[0] == TensorProto.INT8 else 0),
        int(max(-weights.low, weights.high)),
        saturates=kind == "uint8" and types[1] == TensorProto.INT8,
    )


def _kernel(first_type: int, node: onnx.NodeProto, *, is_constant: bool) -> Literal["uint8", "int8"]:
    """How the first factor reaches the kernel.

    ONNX Runtime rewrites int8 activations between QuantizeLinear and DequantizeLinear as uint8, moved up by
    128; it has exact kernels for int8 by int8.
    """
    rewritten = node.op_type in _FLOAT_OPERATORS and is_constant
    return "uint8" if first_type == TensorProto.UINT8 or rewritten else "int8"
