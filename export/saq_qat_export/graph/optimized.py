"""What torch exports, made smaller: constants folded, idle operations removed, nothing merged."""

from collections.abc import Collection

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import rewriter
from onnxscript.optimizer import fold_constants_ir
from onnxscript.rewriter import onnx_fusions

__all__ = ["optimize"]

_SMALL = 1024


def optimize(model: ir.Model, own: Collection[str]) -> None:
    """As ``torch.onnx.export(optimize=True)`` does, in place, but that equal operations stay apart.

    Two quantizers whose numbers happen to be equal are two tensors of the network, and two names of the
    manifest. Engines merge such operations for themselves.

    Args:
        own: names of tensors of the network, each of which keeps an initializer.
    """
    common.InlinePass()(model)
    fold_constants_ir(model, onnx_shape_inference=True)
    rewriter.rewrite(model)
    fold_constants_ir(model, onnx_shape_inference=True)
    passes = (
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )
    for step in passes:
        step(model)
    _merge_constants(model, own)
    onnx_fusions.fuse(model)


def _merge_constants(model: ir.Model, own: Collection[str]) -> None:
    """Numbers of the exporter, such as zero points and axes, once each."""
    kept: dict[tuple[object, ...], ir.Value] = {}
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or name in own or tensor.size > _SMALL or value.is_graph_output():
            continue
        key = (tensor.dtype, tuple(tensor.shape.numpy()), tensor.tobytes())
        first = kept.setdefault(key, value)
        if first is not value:
            value.replace_all_uses_with(first)
            model.graph.initializers.pop(name)
