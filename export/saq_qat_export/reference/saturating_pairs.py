"""What kernels of x86 CPUs without VNNI make of a product: pairs added in saturating int16 (``vpmaddubsw``).

Such kernels take uint8 codes along K two by two, multiply them by int8 codes and saturate each sum of two at
int16; what follows is exact. ``saturation`` is what that adds to the exact sums. Neighbours along K pair up,
in a convolution with channels innermost, as ONNX Runtime packs them: bit for bit what its AVX2 kernels give.
Within the pair bound no pairing matters.
"""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from saq_qat.quant.numerics.grid import exceeds_pair_bound
from saq_qat_export.reference.integer_math import Codes, Weights, Window

__all__ = ["can_saturate", "conv_saturation", "saturation"]

_INT16 = np.iinfo(np.int16)


def can_saturate(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> bool:
    """Whether any two products of these codes, paired in the worst way, leave int16.

    Args:
        first: as stored in uint8.
        second: as stored in int8.
    """
    largest = int(np.abs(second.astype(np.int32)).max(initial=0))
    return exceeds_pair_bound(int(first.max(initial=0)), largest)


def saturation(first: Codes, second: Weights) -> Codes:
    """int32 (..., n, m): what saturating adds to the exact products of (..., n, k) and (..., k, m).

    Args:
        first: 0..255, zero point included.
        second: -128..127; axes before the last two broadcast.
    """
    axes = np.broadcast_shapes(first.shape[:-2], second.shape[:-2])
    result = np.zeros((*axes, first.shape[-2], second.shape[-1]), np.int32)
    if not can_saturate(first, second):
        return result
    left = np.broadcast_to(first, (*axes, *first.shape[-2:]))
    right = np.broadcast_to(second, (*axes, *second.shape[-2:])).astype(np.int32)
    for index in np.ndindex(*axes):
        _add_saturation(result[index], left[index], right[index])
    return result


def _add_saturation(result: Codes, first: Codes, second: Codes) -> None:
    """Of one product (n, k) by (k, m), pair by pair, for the columns in which a pair can leave int16."""
    largest = int(first.max(initial=0))
    for start, columns in _pairs_at_risk(second, largest):
        pair = second[start : start + 2][:, columns]
        exact = first[:, start : start + 2].astype(np.int32) @ pair
        result[:, columns] += np.clip(exact, _INT16.min, _INT16.max) - exact


def _pairs_at_risk(second: Codes, largest: int) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """First index along k of each pair, and the columns in which codes up to ``largest`` can saturate it."""
    for start in range(0, len(second) - 1, 2):
        pair = second[start : start + 2]
        highest = largest * np.maximum(pair, 0).sum(axis=0)
        lowest = largest * np.minimum(pair, 0).sum(axis=0)
        columns = np.flatnonzero((highest > _INT16.max) | (lowest < _INT16.min))
        if columns.size:
            yield start, columns


def conv_saturation(first: Codes, zero_point: int, weight: Weights, window: Window) -> Codes:
    """The same for a convolution: int32 (N, out, H', W') of codes (N, in, H, W) as stored.

    Args:
        zero_point: what padding is stored as.
        weight: (out, in / groups, kH, kW).
    """
    out, depth, height, width = weight.shape
    (pad_h, pad_w), (dil_h, dil_w) = window.padding, window.dilation
    sides = ((0, 0), (0, 0), (pad_h, pad_h), (pad_w, pad_w))
    padded = np.pad(first, sides, constant_values=zero_point)
    span = ((height - 1) * dil_h + 1, (width - 1) * dil_w + 1)
    patches = sliding_window_view(padded, span, axis=(2, 3))
    patches = patches[:, :, :: window.stride[0], :: window.stride[1], ::dil_h, ::dil_w]
    n, _, rows, columns = patches.shape[:4]
    result = np.zeros((n, out, rows, columns), np.int32)
    per_group = out // window.groups
    is_depthwise = window.groups > 1 and depth == per_group == 1  # whose kernels add no pairs
    if is_depthwise or not can_saturate(padded, weight):
        return result
    for group in range(window.groups):
        channels = slice(group * depth, (group + 1) * depth)
        matrix = patches[:, channels].transpose(0, 2, 3, 4, 5, 1).reshape(n * rows * columns, -1)
        own = slice(group * per_group, (group + 1) * per_group)
        kernels = weight[own].transpose(2, 3, 1, 0).reshape(-1, per_group)
        found = saturation(cast(Codes, matrix), kernels)
        result[:, own] = found.reshape(n, rows, columns, per_group).transpose(0, 3, 1, 2)
    return result
