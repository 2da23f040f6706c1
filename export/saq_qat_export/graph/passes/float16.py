"""Half precision between the quantized layers: a float32 graph for TensorRT rewritten to float16.

Images come and logits go in float32. Codes keep their meaning: QuantizeLinear and DequantizeLinear of one
tensor share a scale, rounded to float16 once, also where an image is still float32 as it is quantized.
"""

import numpy as np
import onnx_ir as ir

from saq_qat.errors import LegalityError

__all__ = ["to_float16"]

_SMALLEST_SCALE = float(np.finfo(np.float16).smallest_normal)
_LARGEST = float(np.finfo(np.float16).max)
_QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
# Inputs that ONNX wants in float32 whatever the data are.
_ALWAYS_FLOAT32 = {"Resize": 2}


def to_float16(model: ir.Model) -> None:
    """Rewrite floats to float16 in place; codes, integer tensors and the opset stay.

    Weights stored at a multiple of their codes (``deploy.refine_bias``) give that power of two back to a
    scale that float16 cannot hold: the same weights, and a float bias has no use for the finer grid.

    Args:
        model: float32, opset 19 or later: the first with float16 scales.

    Raises:
        LegalityError: a scale is zero, subnormal or infinite in float16, or another constant too large.
    """
    for node in model.graph:
        _coarsen(node)
    kept = _always_float32(model)
    for value in model.graph.initializers.values():
        if value.dtype == ir.DataType.FLOAT and value.name not in kept:
            is_scale = any(use.node.op_type in _QUANTIZERS and use.idx == 1 for use in value.uses())
            _store(value, _halved(str(value.name), _array(value), is_scale=is_scale))
    for node in model.graph:
        _halve_attributes(node)
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT:
                value.dtype = ir.DataType.FLOAT16
    for image in model.graph.inputs:
        if image.dtype == ir.DataType.FLOAT:
            _take_float32(model, image)
    for index, value in enumerate(model.graph.outputs):
        if value.dtype == ir.DataType.FLOAT16:
            _return_float32(model, index, value)


def _coarsen(node: ir.Node) -> None:
    """Divide a weight's codes by their common power of two where a scale needs it; zeros fit any scale."""
    weight, scale = node.inputs[:2] if node.op_type == "DequantizeLinear" else (None, None)
    if weight is None or scale is None or not weight.is_initializer():
        return
    codes, scales = _array(weight), _array(scale)
    if scales.ndim != 1 or scales.min() >= _SMALLEST_SCALE:
        return
    common = int(np.gcd.reduce(codes.astype(np.int64).reshape(-1)))
    factor = common & -common or 1
    axis = node.attributes.get_int("axis", 1)
    is_zero = ~np.moveaxis(codes, axis, 0).reshape(len(scales), -1).any(axis=1)
    _store(weight, codes // codes.dtype.type(factor))
    _store(scale, np.where(is_zero, np.float32(1), scales * np.float32(factor)))


def _always_float32(model: ir.Model) -> set[str]:
    inputs = (
        node.inputs[_ALWAYS_FLOAT32[node.op_type]]
        for node in model.graph
        if len(node.inputs) > _ALWAYS_FLOAT32.get(node.op_type, len(node.inputs))
    )
    return {str(value.name) for value in inputs if value is not None}


def _halved(name: str, floats: np.ndarray, *, is_scale: bool) -> np.ndarray:
    with np.errstate(over="ignore"):
        halves = floats.astype(np.float16)
    lowest = _SMALLEST_SCALE if is_scale else 0.0
    bad = ~np.isfinite(halves) | (np.abs(halves) < lowest)
    if bad.any():
        raise LegalityError(
            f"{name}: float16 holds {'scales' if is_scale else 'numbers'} of {lowest:.3g} to {_LARGEST:.0f}; "
            f"got {float(floats[bad].reshape(-1)[0])!r}. Set deploy.tensorrt.precision: float32."
        )
    return halves


def _halve_attributes(node: ir.Node) -> None:
    """Constants inside nodes, and casts to float32."""
    for name, attribute in list(node.attributes.items()):
        if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype == ir.DataType.FLOAT:
            halves = _halved(str(node.name), attribute.as_tensor().numpy(), is_scale=False)
            node.attributes[name] = ir.AttrTensor(name, ir.tensor(halves))
        elif (node.op_type, name) == ("Cast", "to") and attribute.as_int() == ir.DataType.FLOAT:
            node.attributes[name] = ir.AttrInt64(name, ir.DataType.FLOAT16.value)


def _take_float32(model: ir.Model, image: ir.Value) -> None:
    """Quantizers of the image read it as it is, with the rounded scale in float32; others read a Cast."""
    others = []
    for use in image.uses():
        if use.node.op_type == "QuantizeLinear":
            _widen_scale(model, use.node)
        else:
            others.append(use)
    if others:
        cast = _cast(image, f"{image.name}_float16", ir.DataType.FLOAT16)
        model.graph.insert_before(next(iter(model.graph)), cast)
        for use in others:
            use.node.replace_input_with(use.idx, cast.outputs[0])


def _widen_scale(model: ir.Model, quantize: ir.Node) -> None:
    scale = quantize.inputs[1]
    if scale is None or scale.dtype != ir.DataType.FLOAT16:
        return
    name = f"{scale.name}_float32"
    if name not in model.graph.initializers:
        value = ir.Value(
            name=name, const_value=None, shape=scale.shape, type=ir.TensorType(ir.DataType.FLOAT)
        )
        _store(value, _array(scale).astype(np.float32))
        model.graph.register_initializer(value)
    quantize.replace_input_with(1, model.graph.initializers[name])


def _return_float32(model: ir.Model, index: int, value: ir.Value) -> None:
    name, writer = str(value.name), value.producer()
    if writer is None:
        raise ValueError(f"{name}: a graph output must be written by a node")
    value.name = f"{name}_float16"
    cast = _cast(value, name, ir.DataType.FLOAT)
    model.graph.insert_after(writer, cast)
    model.graph.outputs[index] = cast.outputs[0]


def _cast(source: ir.Value, name: str, dtype: ir.DataType) -> ir.Node:
    result = ir.Value(name=name, shape=source.shape, type=ir.TensorType(dtype))
    return ir.Node(
        "", "Cast", [source], [ir.AttrInt64("to", dtype.value)], outputs=[result], name=f"Cast:{name}"
    )


def _array(value: ir.Value) -> np.ndarray:
    if value.const_value is None:
        raise ValueError(f"{value.name}: scales and weights must be constants")
    return value.const_value.numpy()


def _store(value: ir.Value, array: np.ndarray) -> None:
    value.const_value = ir.tensor(array, name=value.name)
    value.dtype = value.const_value.dtype
