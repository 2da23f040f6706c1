"""What ONNX operators do with the numbers they read: the one table for graphs, proofs, rules and audits.

An operator that stands here hands on numbers of its input, so that codes stay codes of the same scale.
Sources: the operator's definition (https://onnx.ai/onnx/operators); what TensorRT moves across a
DequantizeLinear, its guide on explicit quantization ("layers that commute with Q/DQ") and engines that were
built.
"""

from collections.abc import Sequence
from typing import Literal

__all__ = [
    "BOUNDS",
    "CROSSED_BY_ONNXRUNTIME",
    "EFFECTS",
    "MOVES",
    "PRODUCTS",
    "RESHAPES",
    "Effect",
    "carried",
]

Effect = Literal["reshapes", "regroups", "passes", "selects", "repeats", "joins", "pools", "fills", "bounds"]
"""reshapes, regroups: every number once, in another order or shape; regroups by blocks of pixels. passes:
unchanged, in inference. selects: some of the numbers. repeats: some several times. joins: the numbers of all
inputs. pools: the largest of some. fills: numbers of the input beside numbers of its own, as its attributes
say. bounds: cuts numbers off."""

EFFECTS: dict[str, Effect] = {
    "Flatten": "reshapes",
    "Identity": "reshapes",
    "Reshape": "reshapes",
    "Squeeze": "reshapes",
    "Transpose": "reshapes",
    "Unsqueeze": "reshapes",
    "DepthToSpace": "regroups",
    "SpaceToDepth": "regroups",
    "Dropout": "passes",
    "Gather": "selects",
    "Slice": "selects",
    "Split": "selects",
    "Expand": "repeats",
    "Tile": "repeats",
    "Concat": "joins",
    "MaxPool": "pools",
    "Pad": "fills",
    "Resize": "fills",
    "Clip": "bounds",
    "Relu": "bounds",
}


def _with(*effects: Effect) -> frozenset[str]:
    return frozenset(name for name, effect in EFFECTS.items() if effect in effects)


RESHAPES = _with("reshapes")
"""What exported graphs move codes through. It is no more than torch's reshapes, on purpose: a deploy view
takes a part or a repetition of codes for a float operation, so its DequantizeLinear stays before it."""

MOVES = _with("reshapes", "regroups", "passes", "selects", "repeats", "joins", "pools")
"""Outputs hold numbers of the inputs and no others, whatever the attributes: TensorRT computes them on either
side of a DequantizeLinear, and the codes of what they write are known from the codes of what they read."""

CROSSED_BY_ONNXRUNTIME = frozenset(
    {"Dropout", "Identity", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
)
"""Those of `MOVES` across which ONNX Runtime moves QuantizeLinear and DequantizeLinear, so that a kernel on
their other side stays an integer one (its QDQPropagationTransformer). Flatten, Gather and Expand are not
among them: behind or before one, a sum of codes is computed in float."""

BOUNDS = _with("bounds")
"""May stand between a kernel and the quantizer whose codes it writes: rounding is monotone."""

PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Convolutions and matrix products: what integer kernels are for."""


def carried(op_type: str, inputs: Sequence[str]) -> tuple[str, ...]:
    """The inputs whose numbers an operator of this table hands on; the others are sizes and places."""
    return tuple(inputs) if EFFECTS.get(op_type) == "joins" else tuple(inputs[:1])
