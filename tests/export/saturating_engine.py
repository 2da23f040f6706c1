"""Whether the engine on this machine adds pairs of products in saturating int16, as x86 without VNNI does."""

from functools import cache

import numpy as np
from onnx import helper

from saq_qat_export.reference.saturating_pairs import saturation
from tests.export.onnx_models import Array, dequantize, run_nodes

__all__ = ["engine_saturates", "lost_here"]


@cache
def engine_saturates() -> bool:
    """Asked of the engine itself: 2 * 255 * 127 does not fit int16."""
    one = {f"{name}_scale": np.float32(1) for name in "ab"}
    zero = {"a_zero_point": np.uint8(0), "b_zero_point": np.int8(0)}
    nodes = [dequantize("a"), dequantize("b"), helper.make_node("MatMul", ["a_value", "b_value"], ["y"])]
    feeds = {"a": np.full((4, 8), 255, np.uint8), "b": np.full((8, 16), 127, np.int8)}
    return bool((run_nodes(nodes, feeds, one | zero) != 8 * 255 * 127).any())


def lost_here(first: Array, second: Array) -> Array | int:
    """What the engine on this CPU adds to the exact products of uint8 and int8 codes: 0 with VNNI."""
    return saturation(first.astype(np.int32), second) if engine_saturates() else 0
