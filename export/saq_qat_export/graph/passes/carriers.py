"""Carriers of codes (reshape, transpose, ...) on the side of the DequantizeLinear that a target asks for.

Exact either way: a scale for the whole tensor multiplies each element wherever it lies.
"""

import onnx_ir as ir

from saq_qat_export.graph.passes.names import copy_scope
from saq_qat_runtime.operators import RESHAPES

__all__ = ["dequantize_before_carriers", "dequantize_behind_carriers"]


def dequantize_before_carriers(model: ir.Model) -> None:
    """Let every DequantizeLinear read its QuantizeLinear; what stood between moves behind it, in place."""
    for node in list(model.graph):
        while node.op_type == "DequantizeLinear" and (carrier := _carrier(node)) is not None:
            _swap(model, node, carrier)


def _carrier(dequantize: ir.Node) -> ir.Node | None:
    source = dequantize.inputs[0]
    producer = None if source is None else source.producer()
    return producer if producer is not None and producer.op_type in RESHAPES else None


def _swap(model: ir.Model, dequantize: ir.Node, carrier: ir.Node) -> None:
    """The carrier is copied behind ``dequantize``: the carrier itself may have other readers."""
    moved, codes = dequantize.outputs[0], carrier.inputs[0]
    copy = ir.Node("", carrier.op_type, [None, *carrier.inputs[1:]], carrier.attributes.values())
    copy.metadata_props.update(carrier.metadata_props)
    result = copy.outputs[0]
    result.shape, result.type = moved.shape, moved.type
    moved.replace_all_uses_with(result)
    copy.replace_input_with(0, moved)
    dequantize.replace_input_with(0, codes)
    moved.shape = None if codes is None else codes.shape
    model.graph.insert_after(dequantize, copy)


def dequantize_behind_carriers(model: ir.Model) -> None:
    """Let carriers move codes: a DequantizeLinear of codes that a carrier reads moves behind it, in place.

    ONNX Runtime takes an integer kernel only where the product reads the DequantizeLinear itself. Readers
    that move codes alike share one carrier.
    """
    moved: dict[tuple[object, ...], ir.Value] = {}
    for node in list(model.graph):
        source = node.inputs[0] if node.op_type in RESHAPES else None
        dequantize = None if source is None else source.producer()
        if dequantize is None or not _is_of_codes(dequantize) or node.outputs[0].is_graph_output():
            continue
        key = (dequantize.inputs[0], node.op_type, *_settings(node))
        if key not in moved:
            moved[key] = _dequantize_behind(model, node, dequantize)
        node.outputs[0].replace_all_uses_with(moved[key])
        model.graph.remove(node, safe=True)


def _is_of_codes(node: ir.Node) -> bool:
    """Whether a node dequantizes a computed tensor, which has one scale."""
    codes = node.inputs[0] if node.op_type == "DequantizeLinear" else None
    return codes is not None and codes.const_value is None and codes.producer() is not None


def _settings(carrier: ir.Node) -> tuple[object, ...]:
    """What makes two carriers move alike: constants by their numbers."""
    constants = [
        None if value is None else ir.convenience.get_const_tensor(value) for value in carrier.inputs[1:]
    ]
    named = [
        value if tensor is None else (str(tensor.dtype), tensor.numpy().tobytes())
        for value, tensor in zip(carrier.inputs[1:], constants, strict=True)
    ]
    attributes = [(name, str(attribute.value)) for name, attribute in sorted(carrier.attributes.items())]
    return (*named, *attributes)


def _dequantize_behind(model: ir.Model, carrier: ir.Node, dequantize: ir.Node) -> ir.Value:
    """The value of ``carrier``, whose copy reads codes and is then dequantized."""
    codes, floats = dequantize.inputs[0], carrier.outputs[0]
    copy = ir.Node("", carrier.op_type, [codes, *carrier.inputs[1:]], carrier.attributes.values())
    copy.outputs[0].shape = floats.shape
    copy.outputs[0].type = None if codes is None else codes.type
    behind = ir.Node(
        "", "DequantizeLinear", [copy.outputs[0], *dequantize.inputs[1:]], dequantize.attributes.values()
    )
    behind.outputs[0].shape, behind.outputs[0].type = floats.shape, floats.type
    copy_scope(None if codes is None else codes.producer(), copy)
    copy_scope(dequantize, behind)
    model.graph.insert_after(carrier, [copy, behind])
    return behind.outputs[0]
