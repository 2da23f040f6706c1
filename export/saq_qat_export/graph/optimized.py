"""What torch exports, made smaller: constants folded, idle operations removed, nothing merged."""

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import rewriter
from onnxscript.optimizer import fold_constants_ir
from onnxscript.rewriter import onnx_fusions

__all__ = ["optimize"]

_ROUNDS = 2


def optimize(model: ir.Model) -> None:
    """As ``torch.onnx.export(optimize=True)`` does, in place, but that equal operations stay apart.

    Two quantizers whose numbers happen to be equal are two tensors of the network, and two names of the
    manifest. Engines merge such operations for themselves.
    """
    common.InlinePass()(model)
    for _ in range(_ROUNDS):
        fold_constants_ir(model, onnx_shape_inference=True)
        rewriter.rewrite(model)
    passes = (
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.LiftSubgraphInitializersToMainGraphPass(),
        common.DeduplicateInitializersPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )
    for step in passes:
        step(model)
    onnx_fusions.fuse(model)
