"""What torch exports, made smaller: constants folded, idle operations removed, nothing merged."""

from collections.abc import Collection

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import rewriter
from onnxscript.optimizer import fold_constants_ir
from onnxscript.rewriter import RewriteRule, onnx_fusions
from onnxscript.rewriter.rules import common as rules

__all__ = ["optimize"]

_SMALL = 1024
# Those of the library's own choice that can apply, by the operator they start from. It tries every rule on
# every node, and its rule that makes a Split of two Slices every pair of nodes: minutes, of a large network.
_RULES: dict[str, tuple[RewriteRule, ...]] = {
    "Add": (*rules.add_0_rule.commute(),),
    "BatchNormalization": (
        rules.fuse_batchnorm_into_conv_rule,
        rules.fuse_batchnorm_into_conv_transpose_rule,
        rules.fuse_batchnorm_into_gemm_rule,
    ),
    "Cast": (
        rules.cast_constant_of_shape_rule,
        rules.cast_constant_of_shape_without_value_rule,
        rules.cast_cast_rule,
        rules.no_op_cast_rule,
    ),
    "Clip": (rules.successive_clip_relu_rule, rules.successive_clip_rule),
    "Conv": (
        rules.normalize_pad_format_conv_rule,
        rules.fuse_pad_into_conv_rule,
        rules.remove_optional_bias_from_conv_rule,
    ),
    "ConvTranspose": (rules.remove_optional_bias_from_conv_transpose_rule,),
    "Div": (rules.div_by_1_rule,),
    "Expand": (rules.no_op_expand_rule,),
    "Flatten": (rules.flatten_to_reshape_rule,),
    "Gemm": (rules.remove_optional_bias_from_gemm_rule,),
    "Max": (rules.max_max_rule, rules.min_max_rule),
    "Min": (rules.min_min_rule, rules.max_min_rule),
    "Mul": (*rules.mul_by_1_rule.commute(),),
    "Relu": (rules.successive_relu_clip_rule, rules.successive_relu_rule),
    "Reshape": (
        rules.two_reshapes_matmul_reshape_rule,
        rules.one_reshape_matmul_reshape_rule,
        rules.materialize_reshape_shape_rule,
        rules.reshape_reshape_rule,
        rules.squeeze_reshape_1d_rule,
    ),
    "ScatterND": (rules.no_op_dynamic_scatter_nd_rule, rules.no_op_static_scatter_nd_rule),
    "Slice": (rules.collapse_slice_rule, rules.collapse_slice2_rule),
    "Sub": (rules.sub_0_rule,),
    "Transpose": (rules.no_op_transpose_rule, rules.transpose_transpose_rule),
    "Unsqueeze": (rules.unsqueeze_unsqueeze_rule,),
}
_WRITTEN = {"Clip", "Reshape"}
"""What rules write, and others read."""


def optimize(model: ir.Model, own: Collection[str]) -> None:
    """As ``torch.onnx.export(optimize=True)`` does, in place, but that equal operations stay apart.

    Two quantizers whose numbers happen to be equal are two tensors of the network, and two names of the
    manifest. Engines merge such operations for themselves.

    Args:
        own: names of tensors of the network, each of which keeps an initializer.
    """
    common.InlinePass()(model)
    fold_constants_ir(model, onnx_shape_inference=True)
    rewriter.rewrite(model, _rules_for(model))
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


def _rules_for(model: ir.Model) -> list[RewriteRule]:
    present = {node.op_type for node in model.graph} | _WRITTEN
    return [rule for op_type, found in _RULES.items() if op_type in present for rule in found]


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
