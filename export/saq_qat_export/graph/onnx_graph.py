"""The ONNX graph of a deploy view: exported by torch, then the passes of its target (``targets.py``)."""

import logging
import re
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
from torch.onnx.errors import OnnxExporterError

from saq_qat.errors import LegalityError
from saq_qat.quant.deploy.kernels import LOGITS
from saq_qat.quant.trace.graph import module_of
from saq_qat.quant.trace.operations import called_name
from saq_qat.recipe.schema import Deploy, TensorRt
from saq_qat_export.graph.optimized import optimize
from saq_qat_export.graph.passes.names import code_tensors, float_tensors
from saq_qat_export.graph.targets import GRAPH_TARGETS
from saq_qat_export.lint.pair_bound import IntegerProduct, integer_products
from saq_qat_export.reference.qdq_graph import QdqGraph

__all__ = ["INPUT", "OUTPUT", "OnnxGraph", "export_graph", "export_onnx", "export_tensorrt", "read_onnx"]

INPUT, OUTPUT = "image", LOGITS
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
    model = _torch_export(view, image_shape, row.opset, row.patterns())
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
            warnings.simplefilter("ignore")  # of the exporter, about itself
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
                optimize=False,
            )
    except OnnxExporterError as error:
        cause = _first_cause(error)
        raise LegalityError(
            f"torch.onnx cannot write the network as ONNX{_place(view, cause)}: {cause} Write it "
            "otherwise, or take another operation."
        ) from error
    finally:
        exporter.setLevel(level)
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    optimize(program.model, {name for name, _ in (*view.named_parameters(), *view.named_buffers())})
    return program.model


def _first_cause(error: BaseException) -> str:
    """The innermost error, in a sentence: the wrappers say how the exporter works."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return line if line.endswith(".") else f"{line}."


def _place(view: fx.GraphModule, cause: str) -> str:
    """The nodes that call an operation which torch.onnx names by torch's inner name for it, if any does."""
    inner = re.search(r"aten\.(\w+)", cause)
    if inner is None:
        return ""
    named = inner.group(1).replace("_", "")
    calls = [node for node in view.graph.nodes if node.op.startswith("call_")]
    found = [str(n.target if n.op == "call_module" else n.name) for n in calls if _calls(view, n, named)]
    return f", because of {', '.join(found[:3])}" if found else ""


def _calls(view: fx.GraphModule, node: fx.Node, named: str) -> bool:
    module = module_of(view, node)
    name = (called_name(node) if module is None else type(module).__name__).replace("_", "").lower()
    return bool(name) and named.startswith(name)


def _stamp(model: ir.Model) -> None:
    """What the file says of itself: nothing that changes from one export to the next."""
    written = (value for node in model.graph for value in node.outputs)
    for value in (*model.graph.inputs, *model.graph.initializers.values(), *written):
        value.metadata_props.clear()
    model.producer_name, model.producer_version = "saq-qat", ""
    model.graph.name = "saq_qat"
