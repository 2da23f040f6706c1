"""The ONNX graph of a deploy view: written as it is, then the passes of its target (``targets.py``)."""

from dataclasses import dataclass
from functools import cached_property

import onnx
import onnx_ir as ir
from onnx_ir.passes import common
from torch import fx

from saq_qat.quant.deploy.kernels import LOGITS
from saq_qat.recipe.schema import Deploy, TensorRt
from saq_qat_export.graph.direct import write_directly
from saq_qat_export.graph.optimized import optimize
from saq_qat_export.graph.passes.names import code_tensors, float_tensors
from saq_qat_export.graph.patterns.shared import TargetPatterns
from saq_qat_export.graph.tape import BATCH
from saq_qat_export.graph.targets import GRAPH_TARGETS
from saq_qat_export.lint.pair_bound import IntegerProduct, integer_products
from saq_qat_export.reference.qdq_graph import QdqGraph

__all__ = [
    "INPUT",
    "OUTPUT",
    "PRODUCER",
    "OnnxGraph",
    "export_graph",
    "export_onnx",
    "export_tensorrt",
    "image_input",
    "read_onnx",
]

INPUT, OUTPUT = "image", LOGITS
PRODUCER = "saq-qat"
"""What every graph of this project names as its producer."""
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


def export_graph(
    view: fx.GraphModule, image_shape: tuple[int, int, int], target: str, deploy: Deploy
) -> OnnxGraph:
    """The graph of a target in ``GRAPH_TARGETS``: static shapes but for the batch, weights inside.

    Args:
        view: float32 deploy view.
        image_shape: (C, H, W).

    Two exports of one checkpoint are byte-identical: nothing in the file tells of time or place.

    Raises:
        LegalityError: float16 cannot hold a scale, or torch.onnx knows an operation not.
    """
    row = GRAPH_TARGETS[target]
    view = row.prepare(view, deploy)
    model = _exported(view, image_shape, row.opset, row.patterns)
    row.rewrite(model, view, deploy)
    return _finished(model)


def export_onnx(view: fx.GraphModule, image_shape: tuple[int, int, int], deploy: Deploy) -> OnnxGraph:
    """The graph for ONNX Runtime's integer kernels; as ``export_graph``."""
    return export_graph(view, image_shape, "onnxruntime", deploy)


def export_tensorrt(
    view: fx.GraphModule, image_shape: tuple[int, int, int], settings: TensorRt = _DEFAULT
) -> OnnxGraph:
    """The graph for TensorRT: the same integers with zero point 0, float biases and bounds, weights as int8.

    Args:
        settings: what stands between the quantized layers, float32 or float16, and whether products of two
            activations stay float: one fused kernel, which codes would cut up. The others as of
            ``export_graph``.
    """
    return export_graph(view, image_shape, "tensorrt", Deploy(tensorrt=settings))


def _exported(
    view: fx.GraphModule, image_shape: tuple[int, int, int], opset: int, patterns: type[TargetPatterns]
) -> ir.Model:
    """What a target's passes start from."""
    model = write_directly(view, image_input(image_shape), OUTPUT, opset, patterns)
    if model is None:
        from saq_qat_export.graph.traced import export_by_torch  # seconds, which other networks need not wait

        model = export_by_torch(view, image_shape, (INPUT, OUTPUT), opset, patterns)
    optimize(model, {name for name, _ in (*view.named_parameters(), *view.named_buffers())})
    return model


def image_input(image_shape: tuple[int, int, int]) -> ir.Value:
    """The input of a graph for images (C, H, W)."""
    shape, kind = ir.Shape((BATCH, *image_shape)), ir.TensorType(ir.DataType.FLOAT)
    return ir.Value(name=INPUT, shape=shape, type=kind)


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


def _stamp(model: ir.Model) -> None:
    """What the file says of itself: nothing that changes from one export to the next."""
    written = (value for node in model.graph for value in node.outputs)
    for value in (*model.graph.inputs, *model.graph.initializers.values(), *written):
        value.metadata_props.clear()
    model.producer_name, model.producer_version = PRODUCER, ""
    model.graph.name = "saq_qat"
