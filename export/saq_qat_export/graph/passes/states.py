"""First states of recurrent layers that are zeros, which ONNX takes for given."""

import numpy as np
import onnx_ir as ir

from saq_qat_runtime.operators import RESHAPES

__all__ = ["drop_zero_states"]

_RECURRENT = ("GRU", "LSTM", "RNN")
_STATES = (5, 6)
_HANDS_ON = RESHAPES | {"Expand", "Slice"}


def drop_zero_states(model: ir.Model) -> None:
    """Leave out, in place, first states that are zeros made for every sequence of a batch.

    What makes them asks for any amount of memory by a number in the file, which the runtime refuses.
    """
    for node in model.graph:
        for index in _STATES if node.op_type in _RECURRENT else ():
            if index < len(node.inputs) and _is_zeros(node.inputs[index]):
                node.replace_input_with(index, None)


def _is_zeros(value: ir.Value | None) -> bool:
    node = None if value is None else value.producer()
    while node is not None and node.op_type in _HANDS_ON:
        value = node.inputs[0]
        node = None if value is None else value.producer()
    if value is None:
        return False
    if node is not None and node.op_type == "ConstantOfShape":
        filling = node.attributes.get("value")
        return filling is None or not np.any(filling.as_tensor().numpy())
    constant = ir.convenience.get_const_tensor(value)
    return constant is not None and not np.any(constant.numpy())
