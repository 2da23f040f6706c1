"""Weights of recurrent layers as ONNX stores them: gates in its order, directions along a first axis."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["RECURRENT", "stored_weights"]

Array = npt.NDArray[Any]

RECURRENT: dict[str, tuple[int, ...]] = {"GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2)}
"""Where each gate of ONNX's order stands in torch's: reset, update, new become update, reset, hidden; input,
forget, cell, output become input, output, forget, cell (onnx.ai/onnx/operators, GRU and LSTM)."""
_DIRECTIONS = ("", "_reverse")


def stored_weights(operation: str, given: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    """The inputs W, R and B of every layer of a recurrent module, float32.

    Args:
        operation: a key of ``RECURRENT``.
        given: parameters as torch.nn names them, such as ``weight_ih_l0_reverse``.
    """
    order = RECURRENT[operation]
    for layer in range(len(given)):
        ends = [f"l{layer}{end}" for end in _DIRECTIONS if f"weight_ih_l{layer}{end}" in given]
        if not ends:
            return
        for own, name in (("W", "weight_ih"), ("R", "weight_hh")):
            yield f"{own}_l{layer}", np.stack([_ordered(given[f"{name}_{end}"], order) for end in ends])
        if f"bias_ih_{ends[0]}" in given:
            biases = [
                [_ordered(given[f"{name}_{end}"], order) for name in ("bias_ih", "bias_hh")] for end in ends
            ]
            yield f"B_l{layer}", np.stack([np.concatenate(pair) for pair in biases])


def _ordered(array: Array, order: tuple[int, ...]) -> Array:
    gates = np.split(array, len(order))
    return np.concatenate([gates[gate] for gate in order]).astype(np.float32)
