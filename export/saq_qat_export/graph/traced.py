"""The graph of any deploy view, exported by torch."""

import logging
import re
import warnings

import onnx_ir as ir
import torch
from onnxscript.onnx_opset import all_opsets
from torch import fx
from torch.onnx.errors import OnnxExporterError

from saq_qat.errors import LegalityError
from saq_qat.quant.trace.graph import module_of
from saq_qat.quant.trace.operations import called_name
from saq_qat_export.graph.patterns.shared import TargetPatterns, translation_table
from saq_qat_export.graph.tape import BATCH

__all__ = ["export_by_torch"]


def export_by_torch(
    view: fx.GraphModule,
    image_shape: tuple[int, int, int],
    names: tuple[str, str],
    opset: int,
    patterns: type[TargetPatterns],
) -> ir.Model:
    """The model before any pass, traced with two images: a batch of one would be taken for a constant.

    Args:
        view: float32 deploy view.
        image_shape: (C, H, W).
        names: of the graph's input and output.

    Raises:
        LegalityError: torch.onnx knows an operation not.
    """
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
                input_names=list(names[:1]),
                output_names=list(names[1:]),
                dynamic_shapes=({0: torch.export.Dim(BATCH)},),
                custom_translation_table=translation_table(patterns(all_opsets["", opset])),
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
