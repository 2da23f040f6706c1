"""Tensors repeated to a known shape, such as a class token for every image, without operators of unbounded
results."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from saq_qat_export.graph.passes.names import copy_scope

__all__ = ["repeat_by_broadcasting"]

_REPEATING = ("ConstantOfShape", "Expand", "Tile")


def repeat_by_broadcasting(model: ir.Model) -> None:
    """Replace every Expand, Tile and ConstantOfShape whose result has a known shape but for the batch.

    In place. The runtime refuses them: they ask for any amount of memory by a number in the file. ``Where``
    of one tensor twice broadcasts it against a condition: of the sizes it lacks, with N in its place if it
    lacks the batch, which is that of the image. An axis of several elements is repeated by ``Concat``.
    """
    (image,) = model.graph.inputs
    if any(node.op_type in _REPEATING for node in model.graph):
        common.ShapeInferencePass()(model)
    for node in list(model.graph):
        if node.op_type in _REPEATING and _has_known_shape(node, image):
            _repeat(model, node, image)


def _has_known_shape(node: ir.Node, image: ir.Value) -> bool:
    given, shape = node.inputs[0], node.outputs[0].shape
    if given is None or shape is None or image.shape is None:
        return False
    batch = image.shape[0]
    if node.op_type == "ConstantOfShape":
        return list(shape).count(batch) == 1 and all(isinstance(s, int) or s == batch for s in shape)
    if given.shape is None:
        return False
    own = [1] * (len(shape) - len(given.shape)) + list(given.shape)
    return len(own) == len(shape) and all(
        size == before
        or (isinstance(size, int) and isinstance(before, int) and size % before == 0)
        or (size == batch and before == 1)
        for before, size in zip(own, shape, strict=True)
    )


def _repeat(model: ir.Model, node: ir.Node, image: ir.Value) -> None:
    result = node.outputs[0]
    value = _filling(model, node) if node.op_type == "ConstantOfShape" else node.inputs[0]
    if value is None or value.shape is None or result.shape is None:
        raise ValueError(f"{node.name}: shapes were known a moment ago")
    rank = len(result.shape)
    own = [1] * (rank - len(value.shape)) + list(value.shape)
    nodes: list[ir.Node] = []
    for axis, (before, size) in enumerate(zip(own, result.shape, strict=True)):
        if isinstance(before, int) and isinstance(size, int) and 1 < before < size:
            joined = ir.node("Concat", [value] * (size // before), attributes={"axis": axis - rank})
            nodes.append(joined)
            value, own[axis] = joined.outputs[0], size
    lacking = [size if size != before else 1 for before, size in zip(own, result.shape, strict=True)]
    condition = _condition(model, lacking, image, nodes)
    where = ir.node("Where", [condition, value, value])
    where.outputs[0].shape, where.outputs[0].type = result.shape, result.type
    copy_scope(node, where)
    result.replace_all_uses_with(where.outputs[0])
    model.graph.insert_before(node, [*nodes, where])
    model.graph.remove(node, safe=True)


def _filling(model: ir.Model, node: ir.Node) -> ir.Value:
    """The number that fills a ConstantOfShape, as a tensor of one."""
    given = node.attributes.get("value")
    number = np.zeros(1, np.float32) if given is None else given.as_tensor().numpy().reshape(1)
    return _constant(model, f"filling_{node.outputs[0].name}", number)


def _condition(
    model: ir.Model, lacking: Sequence[int | ir.SymbolicDim], image: ir.Value, nodes: list[ir.Node]
) -> ir.Value:
    """Of the shape that a tensor lacks: a constant, or for the batch something of every image."""
    sizes = tuple(size if isinstance(size, int) else 1 for size in lacking)
    constant = _falsehoods(model, sizes)
    if all(isinstance(size, int) for size in lacking):
        return constant
    starts, ends, axes = (_integers(model, numbers) for numbers in ((0, 0, 0), (1, 1, 1), (1, 2, 3)))
    pixel = ir.node("Slice", [image, starts, ends, axes])
    test = ir.node("IsNaN", [pixel.outputs[0]])
    shape = _integers(model, tuple(1 if isinstance(size, int) else -1 for size in lacking))
    found = ir.node("Reshape", [test.outputs[0], shape])
    nodes += [pixel, test, found]
    if all(size == 1 for size in sizes):
        return found.outputs[0]
    both = ir.node("Or", [found.outputs[0], constant])
    nodes.append(both)
    return both.outputs[0]


def _falsehoods(model: ir.Model, sizes: tuple[int, ...]) -> ir.Value:
    name = "falsehoods_" + "_".join(map(str, sizes))
    return _constant(model, name, np.zeros(sizes, bool))


def _integers(model: ir.Model, numbers: tuple[int, ...]) -> ir.Value:
    name = "integers_" + "_".join(str(number).replace("-", "minus") for number in numbers)
    return _constant(model, name, np.array(numbers, np.int64))


def _constant(model: ir.Model, name: str, array: np.ndarray) -> ir.Value:
    """One for all who need the same."""
    if name not in model.graph.initializers:
        tensor = ir.tensor(array, name=name)
        value = ir.Value(
            name=name, const_value=tensor, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype)
        )
        model.graph.register_initializer(value)
    return model.graph.initializers[name]
