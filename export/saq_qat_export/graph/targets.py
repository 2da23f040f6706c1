"""The table of targets: the patterns that each fuses into integer kernels, then its passes in their order."""

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir
from torch import fx

from saq_qat.quant.deploy.integer_modules import IntegerLayer
from saq_qat.quant.deploy.kernels import is_integer_product
from saq_qat.quant.trace import graph
from saq_qat.recipe.schema import Deploy
from saq_qat_export.graph.attention import with_attention
from saq_qat_export.graph.passes.activations import keep_bounds_apart
from saq_qat_export.graph.passes.batch import repeat_by_broadcasting
from saq_qat_export.graph.passes.bounds import drop_idle_relus
from saq_qat_export.graph.passes.carriers import dequantize_before_carriers, dequantize_behind_carriers
from saq_qat_export.graph.passes.constants import fold_into_floats, write_filled_constants
from saq_qat_export.graph.passes.float16 import to_float16
from saq_qat_export.graph.passes.float_layers import keep_layers_in_float
from saq_qat_export.graph.passes.kernel_bounds import bound_before_rounding, requantize_in_kernels
from saq_qat_export.graph.passes.names import name_after_modules
from saq_qat_export.graph.passes.packing import Packing, pack_weights
from saq_qat_export.graph.passes.reshaped_products import keep_scales_before_reshapes
from saq_qat_export.graph.passes.shapes import forget_shapes
from saq_qat_export.graph.passes.states import drop_zero_states
from saq_qat_export.graph.passes.storage import store_uint8_before_int8
from saq_qat_export.graph.passes.zero_points import add_weight_zero_points
from saq_qat_export.graph.patterns import onnxruntime, openvino, tensorrt
from saq_qat_export.graph.patterns.shared import TargetPatterns

__all__ = ["GRAPH_TARGETS", "GraphTarget"]

_PACKED_LEVELS = 16


@dataclass(frozen=True)
class GraphTarget:
    """How a deploy view becomes the ONNX graph of one target.

    Attributes:
        file: its name in a bundle.
        opset: of the graph.
        patterns: what each of our operators becomes.
        prepare: from the deploy view to what is exported.
        rewrite: the passes over the exported graph, in place.
    """

    file: str
    opset: int
    patterns: type[TargetPatterns]
    prepare: Callable[[fx.GraphModule, Deploy], fx.GraphModule]
    rewrite: Callable[[ir.Model, fx.GraphModule, Deploy], None]


def _as_it_is(view: fx.GraphModule, _deploy: Deploy) -> fx.GraphModule:
    return view


def _rewrite_for_onnxruntime(model: ir.Model, view: fx.GraphModule, deploy: Deploy) -> None:
    drop_zero_states(model)
    repeat_by_broadcasting(model)
    write_filled_constants(model)
    dequantize_behind_carriers(model)
    keep_bounds_apart(model)
    keep_layers_in_float(model)
    name_after_modules(model, _products(view))
    store_uint8_before_int8(model)
    add_weight_zero_points(model)
    if deploy.pack_weights:
        pack_weights(model, _packings(view))
    forget_shapes(model)


def _with_chosen_attention(view: fx.GraphModule, deploy: Deploy) -> fx.GraphModule:
    return with_attention(view, deploy.tensorrt.attention)


def _rewrite_for_tensorrt(model: ir.Model, view: fx.GraphModule, deploy: Deploy) -> None:
    drop_zero_states(model)
    dequantize_before_carriers(model)
    name_after_modules(model, _products(view))
    drop_idle_relus(model)
    fold_into_floats(model, _weights_without_codes(view))
    if deploy.tensorrt.precision == "float16":
        to_float16(model)


def _rewrite_for_openvino(model: ir.Model, view: fx.GraphModule, deploy: Deploy) -> None:
    drop_zero_states(model)
    repeat_by_broadcasting(model)
    write_filled_constants(model)
    dequantize_behind_carriers(model)
    keep_scales_before_reshapes(model)
    bound_before_rounding(model)
    requantize_in_kernels(model)
    name_after_modules(model, _products(view))
    if deploy.pack_weights:
        pack_weights(model, _packings(view))


def _products(view: fx.GraphModule) -> list[str]:
    """Graph nodes that multiply two tensors of codes."""
    return [n.name for n in view.graph.nodes if graph.is_product(view, n) and is_integer_product(view, n)]


def _weights_without_codes(view: fx.GraphModule) -> frozenset[str]:
    """Weights of layers that read floats."""
    layers = ((name, m) for name, m in view.named_modules() if isinstance(m, IntegerLayer))
    return frozenset(f"{name}.weight" for name, layer in layers if layer.bias_scale is None)


def _packings(view: fx.GraphModule) -> dict[str, Packing]:
    return {
        f"{name}.weight": Packing(layer.grid.minimum * layer.refinement, layer.grid.step * layer.refinement)
        for name, layer in view.named_modules()
        if isinstance(layer, IntegerLayer) and layer.grid.levels <= _PACKED_LEVELS
    }


GRAPH_TARGETS: dict[str, GraphTarget] = {
    "onnxruntime": GraphTarget(
        "model.onnx",
        onnxruntime.OPSET,
        onnxruntime.OnnxRuntimePatterns,
        _as_it_is,
        _rewrite_for_onnxruntime,
    ),
    "tensorrt": GraphTarget(
        "model.tensorrt.onnx",
        tensorrt.OPSET,
        tensorrt.TensorRtPatterns,
        _with_chosen_attention,
        _rewrite_for_tensorrt,
    ),
    "openvino": GraphTarget(
        "model.openvino.onnx",
        openvino.OPSET,
        openvino.OpenVinoPatterns,
        _as_it_is,
        _rewrite_for_openvino,
    ),
}
