"""Products of two tensors left in float: their quantizers taken out of a deploy view."""

import copy
from typing import Literal

import torch
from torch import fx

from saq_qat.quant.deploy import ops
from saq_qat.quant.deploy.integer_modules import Quantize
from saq_qat.quant.deploy.kernels import is_integer_product, is_never_negative
from saq_qat.quant.trace import graph

__all__ = ["Attention", "with_attention"]

Attention = Literal["float", "int8"]
"""What the products of two activations compute in; everything else stays as it is."""


def with_attention(view: fx.GraphModule, attention: Attention) -> fx.GraphModule:
    """The view itself for ``int8``; for ``float`` a copy whose products read what was quantized for them.

    A quantizer that others read too goes on serving those.
    """
    products = [n for n in view.graph.nodes if graph.is_product(view, n) and is_integer_product(view, n)]
    if attention == "int8" or not products:
        return view
    changed = copy.deepcopy(view)
    nodes = {node.name: node for node in changed.graph.nodes}
    for name in (node.name for node in products):
        product = nodes[name]
        for operand in product.all_input_nodes:
            product.replace_input_with(operand, _unquantized(changed, operand))
    _ask_floats_for_shapes(changed)
    changed.graph.eliminate_dead_code()
    changed.delete_all_unused_submodules()
    changed.graph.lint()
    changed.recompile()
    return changed


def _ask_floats_for_shapes(view: fx.GraphModule) -> None:
    """Let no quantizer stay because somebody asks for the shape of its codes."""
    for node in view.graph.nodes:
        source = node.all_input_nodes[0] if graph.is_shape_query(node) else None
        if source is not None and isinstance(graph.module_of(view, source), Quantize):
            node.replace_input_with(source, source.all_input_nodes[0])


def _unquantized(view: fx.GraphModule, node: fx.Node) -> fx.Node:
    """The value of ``node`` without the codes in between; carriers of codes carry floats instead."""
    module = graph.module_of(view, node)
    if isinstance(module, Quantize):
        return _bounded(view, node, module)
    source = node.all_input_nodes[0]
    if node.target is ops.DEQUANTIZE:
        return _unquantized(view, source)
    floats = _unquantized(view, source)
    with view.graph.inserting_before(node):
        return view.graph.node_copy(node, lambda parent: floats if parent is source else parent)


def _bounded(view: fx.GraphModule, node: fx.Node, module: Quantize) -> fx.Node:
    """What a quantizer reads; if a ReLU before it lives on in its bounds alone, with these bounds."""
    source = node.all_input_nodes[0]
    if module.minimum < 0 or is_never_negative(view, source):
        return source
    scale = float(module.scale)
    with view.graph.inserting_before(node):
        return view.graph.call_function(torch.clamp, (source, 0.0, scale * module.maximum))
