"""The ONNX graph of a deploy view: exported by torch, then a visible list of small passes."""

import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes import common
from torch import fx

from saq_qat.quant.deploy.integer_modules import IntegerLayer
from saq_qat.quant.deploy.kernels import LOGITS, is_integer_product
from saq_qat.quant.trace import graph
from saq_qat.recipe.schema import Deploy, TensorRt
from saq_qat_export.graph.attention import with_attention
from saq_qat_export.graph.passes.activations import keep_relus_apart
from saq_qat_export.graph.passes.batch import repeat_by_broadcasting
from saq_qat_export.graph.passes.bounds import drop_idle_relus
from saq_qat_export.graph.passes.carriers import dequantize_before_carriers, dequantize_behind_carriers
from saq_qat_export.graph.passes.constants import fold_into_floats, write_filled_constants
from saq_qat_export.graph.passes.float16 import to_float16
from saq_qat_export.graph.passes.names import code_tensors, float_tensors, name_after_modules
from saq_qat_export.graph.passes.packing import Packing, pack_weights
from saq_qat_export.graph.passes.shapes import forget_shapes
from saq_qat_export.graph.passes.storage import store_uint8_before_int8
from saq_qat_export.graph.passes.zero_points import add_weight_zero_points
from saq_qat_export.graph.patterns import onnxruntime, tensorrt
from saq_qat_export.lint.pair_bound import IntegerProduct, integer_products
from saq_qat_export.reference.qdq_graph import QdqGraph

__all__ = ["INPUT", "OUTPUT", "OnnxGraph", "export_onnx", "export_tensorrt", "read_onnx"]

INPUT, OUTPUT = "image", LOGITS
_PACKED_LEVELS = 16
_DEFAULT = TensorRt()


@dataclass(frozen=True)
class OnnxGraph:
    """A serialised model, and names of its tensors in graph order.

    Attributes:
        code_tensors: those that hold the codes of a quantizer.
        float_results: float32 results of products of codes that no quantizer follows.
    """

    content: bytes
    code_tensors: tuple[str, ...]
    float_results: tuple[str, ...] = ()

    @cached_property
    def over_pair_bound(self) -> tuple[IntegerProduct, ...]:
        """Integer products that kernels of x86 CPUs without VNNI may saturate at (rule ORT005)."""
        products = integer_products(onnx.load_from_string(self.content))
        return tuple(product for product in products if product.exceeds)


def export_onnx(view: fx.GraphModule, image_shape: tuple[int, int, int], deploy: Deploy) -> OnnxGraph:
    """The graph for ONNX Runtime's integer kernels: static shapes but for the batch, weights inside.

    Args:
        view: float32 deploy view.
        image_shape: (C, H, W).

    Two exports of one checkpoint are byte-identical: nothing in the file tells of time or place.
    """
    model = _torch_export(view, image_shape, onnxruntime.OPSET, onnxruntime.translation_table())
    repeat_by_broadcasting(model)
    write_filled_constants(model)
    dequantize_behind_carriers(model)
    keep_relus_apart(model)
    name_after_modules(model, _products(view))
    store_uint8_before_int8(model)
    add_weight_zero_points(model)
    if deploy.pack_weights:
        pack_weights(model, _packings(view))
    forget_shapes(model)
    return _finished(model)


def export_tensorrt(
    view: fx.GraphModule, image_shape: tuple[int, int, int], settings: TensorRt = _DEFAULT
) -> OnnxGraph:
    """The graph for TensorRT: the same integers with zero point 0, float biases and bounds, weights as int8.

    Args:
        view: float32 deploy view.
        image_shape: (C, H, W).
        settings: what stands between the quantized layers, float32 or float16, and whether products of two
            activations stay float: one fused kernel, which codes would cut up.

    Two exports of one checkpoint are byte-identical.

    Raises:
        LegalityError: float16 cannot hold a scale.
    """
    view = with_attention(view, settings.attention)
    model = _torch_export(view, image_shape, tensorrt.OPSET, tensorrt.translation_table())
    dequantize_before_carriers(model)
    name_after_modules(model, _products(view))
    drop_idle_relus(model)
    fold_into_floats(model, _weights_without_codes(view))
    if settings.precision == "float16":
        to_float16(model)
    return _finished(model)


def _products(view: fx.GraphModule) -> list[str]:
    """Graph nodes that multiply two tensors of codes."""
    return [n.name for n in view.graph.nodes if graph.is_product(view, n) and is_integer_product(view, n)]


def _finished(model: ir.Model) -> OnnxGraph:
    common.RemoveUnusedNodesPass()(model)
    common.ClearMetadataAndDocStringPass()(model)
    _stamp(model)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return read_onnx(proto.SerializeToString(deterministic=True))


def read_onnx(content: bytes) -> OnnxGraph:
    """A serialised model, whoever wrote it, with the names of its tensors."""
    wiring = QdqGraph(onnx.load_model_from_string(content).graph)
    return OnnxGraph(content, code_tensors(wiring), float_tensors(wiring))


def _torch_export(
    view: fx.GraphModule,
    image_shape: tuple[int, int, int],
    opset: int,
    table: dict[Callable[..., Any], Callable[..., Any]],
) -> ir.Model:
    """Traced with two images: a batch of one would be taken for a constant."""
    images = torch.zeros(2, *image_shape)
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                view,
                (images,),
                dynamo=True,
                opset_version=opset,
                external_data=False,
                verbose=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim("N")},),
                custom_translation_table=table,
            )
    finally:
        exporter.setLevel(level)
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    return program.model


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


def _stamp(model: ir.Model) -> None:
    """What the file says of itself: nothing that changes from one export to the next."""
    written = (value for node in model.graph for value in node.outputs)
    for value in (*model.graph.inputs, *model.graph.initializers.values(), *written):
        value.metadata_props.clear()
    model.producer_name, model.producer_version = "saq-qat", ""
    model.graph.name = "saq_qat"
