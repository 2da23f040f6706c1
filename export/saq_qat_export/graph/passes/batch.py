"""Constants repeated for every image, such as a class token, without an operator of unbounded results."""

import numpy as np
import onnx_ir as ir

from saq_qat_export.graph.passes.names import copy_scope

__all__ = ["repeat_by_broadcasting"]


def repeat_by_broadcasting(model: ir.Model) -> None:
    """Replace every Expand of a constant to the batch of the image, in place.

    The runtime refuses Expand, which asks for any amount of memory by a number in the file. ``Where`` of one
    constant twice broadcasts it against a condition (N, 1, ...), whose batch is that of the image.
    """
    (image,) = model.graph.inputs
    for node in list(model.graph):
        if node.op_type == "Expand" and _repeats_along_batch(node, image):
            _broadcast(model, node, image)


def _repeats_along_batch(node: ir.Node, image: ir.Value) -> bool:
    constant, shape = node.inputs[0], node.outputs[0].shape
    if constant is None or constant.shape is None or shape is None or image.shape is None:
        return False
    is_constant = ir.convenience.get_const_tensor(constant) is not None
    is_batch = not isinstance(shape[0], int) and shape[0] == image.shape[0]
    return is_constant and is_batch and list(constant.shape) == [1, *list(shape)[1:]]


def _broadcast(model: ir.Model, expand: ir.Node, image: ir.Value) -> None:
    rank = len(expand.outputs[0].shape or ())
    starts, ends, axes = (_integers(model, numbers) for numbers in ((0, 0, 0), (1, 1, 1), (1, 2, 3)))
    pixel = ir.node("Slice", [image, starts, ends, axes])
    test = ir.node("IsNaN", [pixel.outputs[0]])
    shape = _integers(model, (-1, *(1,) * (rank - 1)))
    condition = ir.node("Reshape", [test.outputs[0], shape])
    constant, repeated = expand.inputs[0], expand.outputs[0]
    where = ir.node("Where", [condition.outputs[0], constant, constant])
    where.outputs[0].shape, where.outputs[0].type = repeated.shape, repeated.type
    copy_scope(expand, where)
    repeated.replace_all_uses_with(where.outputs[0])
    model.graph.insert_before(expand, [pixel, test, condition, where])
    model.graph.remove(expand, safe=True)


def _integers(model: ir.Model, numbers: tuple[int, ...]) -> ir.Value:
    """A constant of int64, one for all who need the same."""
    name = "integers_" + "_".join(str(number).replace("-", "minus") for number in numbers)
    if name not in model.graph.initializers:
        tensor = ir.tensor(np.array(numbers, np.int64), name=name)
        value = ir.Value(
            name=name, const_value=tensor, shape=ir.Shape((len(numbers),)), type=ir.TensorType(tensor.dtype)
        )
        model.graph.register_initializer(value)
    return model.graph.initializers[name]
