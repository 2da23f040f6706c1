"""Golden codes: what the integer reference computes, whatever engine is at hand."""

import torch
from torch import fx

from saq_qat_export.graph.onnx_graph import OnnxGraph
from saq_qat_export.proof.probe import Probe
from saq_qat_export.proof.tensors import compare_reference, producers
from saq_qat_export.reference.deploy_view import Stored, run_reference
from saq_qat_export.reference.integer_math import Float32

__all__ = ["golden_codes"]


@torch.no_grad()
def golden_codes(
    view: fx.GraphModule, graph: OnnxGraph, images: Float32
) -> tuple[dict[str, Stored], Float32]:
    """Stored codes by tensor name, and logits, that float32 images (N, C, H, W) must give.

    The engine decides one thing alone: codes behind float operations that lie at a rounding tie, where
    reference and engine may part and later layers would amplify it. An engine that differs anywhere else has
    no say at all.
    """
    seen = Probe(graph).observe(images)
    if any(tensor.mismatches for tensor in compare_reference(view, images, seen)):
        own = run_reference(view, images)
        return own.codes, own.logits
    own = run_reference(view, images, taught=seen.codes)
    kinds = producers(view)
    codes = {
        name: seen.codes[name] if kinds[name] == "float" else stored for name, stored in own.codes.items()
    }
    return codes, own.logits
