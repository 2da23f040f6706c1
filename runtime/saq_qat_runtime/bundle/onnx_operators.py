"""The operators that a bundle's model may have: those that export writes, each with the attributes that it
writes, the shape of what it gives, and the memory and the operations that its kernels take.

An operator is missing if a number in the file, and no promised shape, sizes its result (ConstantOfShape,
Expand, Range, Tile, OneHot, ...), if it runs other graphs (If, Loop, Scan), or if its result is not the same
every time (RandomNormal, ...): export writes none of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from saq_qat_runtime.bundle import onnx_einsum as contractions
from saq_qat_runtime.bundle import onnx_shapes as shapes
from saq_qat_runtime.bundle import onnx_windows as windows
from saq_qat_runtime.bundle import onnx_work as work
from saq_qat_runtime.bundle.decode import require
from saq_qat_runtime.bundle.onnx_call import Call, Rule, Shape
from saq_qat_runtime.bundle.onnx_tensor import LARGEST_RANK, StoredTensor

__all__ = ["OPERATORS", "Operator", "checked_shape", "element_width"]

_WIDTHS = {1: 4, 6: 4, 7: 8, 11: 8, 12: 4, 13: 8, 4: 2, 5: 2, 10: 2, 16: 2, 8: 64, 14: 8, 15: 16}
"""Bytes of an element, by its type in the file; a text takes an object of its own. All other types take one
byte at most."""


def element_width(element_type: int) -> int:
    """Bytes of an element in memory."""
    return _WIDTHS.get(element_type, 1)


_PACKED = 4
"""How many numbers a byte of the file may hold at most."""


@dataclass(frozen=True)
class Operator:
    """shape: of its results. attributes: that it may have. width: bytes of an element of its results.

    beside: bytes that its kernels take beside results. work: operations beside one for each element that it
    reads or writes, in multiply-adds.
    """

    shape: Rule
    attributes: frozenset[str]
    width: Callable[[Call], int]
    beside: Callable[[Call], int]
    work: Callable[[Call], int]


def _as_first(call: Call) -> int:
    return call.tensor(0).width


def _as_second(call: Call) -> int:
    return call.tensor(1).width


def _pool_width(call: Call) -> int:
    """Of places too, where they are asked for."""
    return call.tensor(0).width if call.results == 1 else 8


def _cast_width(call: Call) -> int:
    return element_width(call.number("to", 0))


def _quantized_width(call: Call) -> int:
    return max(
        call.tensor(2).width if len(call.inputs) > 2 else 1, element_width(call.number("output_dtype", 0))
    )


def _constant_width(call: Call) -> int:
    found = call.attributes.get("value")
    return element_width(found.element_type) if isinstance(found, StoredTensor) else 8


def _fixed(width: int) -> Callable[[Call], int]:
    return lambda call: width


def _nothing(call: Call) -> int:
    return 0


def _gates(call: Call) -> int:
    """Of a recurrent layer: all gates of all steps."""
    x, weight = call.shape(0), call.shape(1)
    return prod(x[:2]) * prod(weight[:2]) * call.tensor(0).width


def _constant(call: Call) -> Shape:
    found = call.attributes.get("value")
    if isinstance(found, StoredTensor):
        return checked_shape(found)
    for name in ("value_ints", "value_floats"):
        listed = call.attributes.get(name)
        if isinstance(listed, tuple):
            return (len(listed),)
    return ()


def checked_shape(tensor: StoredTensor) -> Shape:
    """Of a tensor of the file; raises ModelError for too many axes, or more numbers than the file holds."""
    rank = len(tensor.shape)
    require(rank <= LARGEST_RANK, f"tensor {tensor.name!r} has {rank:,} axes; {LARGEST_RANK} are allowed.")
    count = prod(tensor.shape)
    fits = min(tensor.shape, default=0) >= 0 and count <= _PACKED * tensor.size
    require(fits, f"tensor {tensor.name!r} says that it is {tensor.shape}, and has {tensor.size} bytes.")
    return tensor.shape


def _row(
    shape: Rule,
    attributes: str = "",
    width: Callable[[Call], int] = _as_first,
    beside: Callable[[Call], int] = _nothing,
    work: Callable[[Call], int] = _nothing,
) -> Operator:
    return Operator(shape, frozenset(attributes.split()), width, beside, work)


_WINDOW = "auto_pad dilations kernel_shape pads strides"
_POOL = f"{_WINDOW} ceil_mode"
_RECURRENT = "direction hidden_size layout activations activation_alpha activation_beta clip"

_EVERY_NUMBER = {
    "Abs": "", "Acos": "", "Acosh": "", "Asin": "", "Asinh": "", "Atan": "", "Atanh": "",
    "BatchNormalization": "epsilon momentum training_mode", "BitwiseNot": "", "Ceil": "", "Celu": "alpha",
    "Cos": "", "Cosh": "", "CumSum": "exclusive reverse", "Dropout": "seed", "Elu": "alpha",
    "Erf": "", "Exp": "", "Floor": "", "Gelu": "approximate",
    "GroupNormalization": "epsilon num_groups stash_type",
    "HardSigmoid": "alpha beta", "HardSwish": "", "Identity": "", "InstanceNormalization": "epsilon",
    "LeakyRelu": "alpha",
    "Log": "", "LogSoftmax": "axis", "LpNormalization": "axis p", "Mish": "", "Neg": "",
    "Reciprocal": "", "Relu": "", "Round": "",
    "ScatterElements": "axis reduction", "ScatterND": "reduction", "Selu": "alpha gamma", "Sigmoid": "",
    "Sign": "", "Sin": "", "Sinh": "", "Softmax": "axis", "Softplus": "", "Softsign": "", "Sqrt": "",
    "Swish": "alpha", "Tan": "", "Tanh": "", "ThresholdedRelu": "alpha", "Trilu": "upper",
}  # fmt: skip  # one value a line is a page
_REPEATED = {
    "Clip": "", "LayerNormalization": "axis epsilon stash_type", "PRelu": "",
    "RMSNormalization": "axis epsilon stash_type",
}  # fmt: skip  # one value a line is a page
_PAIRS = {
    "Add": "", "BitShift": "direction", "BitwiseAnd": "", "BitwiseOr": "", "BitwiseXor": "", "Div": "",
    "Max": "", "Mean": "", "Min": "", "Mod": "fmod", "Mul": "", "Pow": "", "Sub": "",
    "Sum": "",
}  # fmt: skip  # one value a line is a page
_TESTS = ("And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Or", "Xor")
_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare",
)  # fmt: skip  # one value a line is a page

OPERATORS: dict[str, Operator] = {
    **{name: _row(shapes.same, attributes) for name, attributes in _EVERY_NUMBER.items()},
    **{name: _row(shapes.broadcast_into, attributes) for name, attributes in _REPEATED.items()},
    **{name: _row(shapes.broadcast, attributes) for name, attributes in _PAIRS.items()},
    **{name: _row(shapes.broadcast, width=_fixed(1)) for name in _TESTS},
    **{name: _row(shapes.same, width=_fixed(1)) for name in ("IsNaN", "Not")},
    "IsInf": _row(shapes.same, "detect_negative detect_positive", _fixed(1)),
    **{name: _row(shapes.reduce, "keepdims noop_with_empty_axes") for name in _REDUCTIONS},
    **{
        name: _row(shapes.arg_reduce, "axis keepdims select_last_index", _fixed(8))
        for name in ("ArgMax", "ArgMin")
    },
    "AveragePool": _row(windows.pool, f"{_POOL} count_include_pad", work=work.pool),
    "Cast": _row(shapes.same, "to saturate", _cast_width),
    "CastLike": _row(shapes.same, "saturate", _as_second),
    "Col2Im": _row(windows.patches_added, "dilations pads strides"),
    "Concat": _row(shapes.concat, "axis"),
    "Constant": _row(_constant, "value value_float value_floats value_int value_ints", _constant_width),
    "Conv": _row(windows.convolution, f"{_WINDOW} group", beside=windows.columns, work=work.convolution),
    "ConvTranspose": _row(
        windows.transposed_convolution,
        f"{_WINDOW} group output_padding output_shape",
        beside=windows.transposed_columns,
        work=work.transposed_convolution,
    ),
    "DepthToSpace": _row(windows.depth_to_space, "blocksize mode"),
    "DequantizeLinear": _row(shapes.scaled, "axis block_size output_dtype", _as_second),
    "Einsum": _row(contractions.einsum, "equation", beside=contractions.between, work=work.contraction),
    "Flatten": _row(shapes.flatten, "axis"),
    "GRU": _row(windows.recurrent, f"{_RECURRENT} linear_before_reset", beside=_gates, work=work.recurrent),
    "Gather": _row(shapes.gather, "axis"),
    "GatherElements": _row(shapes.gather_elements, "axis"),
    "GatherND": _row(shapes.gather_nd, "batch_dims"),
    "Gemm": _row(shapes.gemm, "alpha beta transA transB", work=work.gemm),
    "GlobalAveragePool": _row(windows.global_pool),
    "GlobalMaxPool": _row(windows.global_pool),
    "GridSample": _row(windows.grid_sample, "align_corners mode padding_mode", work=work.sampled),
    "LRN": _row(shapes.same, "alpha beta bias size", work=work.neighbours),
    "LSTM": _row(windows.recurrent, f"{_RECURRENT} input_forget", beside=_gates, work=work.recurrent),
    "MatMul": _row(shapes.matmul, work=work.matmul),
    "MaxPool": _row(windows.pool, f"{_POOL} storage_order", _pool_width, work=work.pool),
    "Pad": _row(windows.pad, "mode"),
    "QuantizeLinear": _row(
        shapes.scaled, "axis block_size output_dtype precision saturate", _quantized_width
    ),
    "RNN": _row(windows.recurrent, _RECURRENT, beside=_gates, work=work.recurrent),
    "Reshape": _row(shapes.reshape, "allowzero"),
    "Resize": _row(
        windows.resize,
        "antialias axes coordinate_transformation_mode cubic_coeff_a exclude_outside extrapolation_value "
        "keep_aspect_ratio_policy mode nearest_mode",
        beside=windows.between,
        work=work.resize,
    ),
    "Shape": _row(shapes.shape_of, "end start", _fixed(8)),
    "Slice": _row(shapes.slice_of),
    "SpaceToDepth": _row(windows.space_to_depth, "blocksize"),
    "Split": _row(shapes.split, "axis num_outputs"),
    "Squeeze": _row(shapes.squeeze),
    "TopK": _row(shapes.top_k, "axis largest sorted", _fixed(8), work=work.sorted_out),
    "Transpose": _row(shapes.transpose, "perm"),
    "Unsqueeze": _row(shapes.unsqueeze),
    "Where": _row(shapes.broadcast, width=_as_second),
}
"""By name, of ONNX's own operators."""
