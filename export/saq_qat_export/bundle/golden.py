"""Golden codes: what the integer reference computes, whatever engine is at hand."""

import numpy as np
import torch
from torch import fx

from saq_qat.data.batches import val_batches
from saq_qat.data.sample import sample_validation
from saq_qat.quant.deploy.kernels import LOGITS
from saq_qat.train.restore import Restored
from saq_qat_export.graph.onnx_graph import OnnxGraph
from saq_qat_export.proof.probe import probe_of
from saq_qat_export.proof.tensors import compare_computed, producers
from saq_qat_export.reference.deploy_view import Stored, run_reference
from saq_qat_export.reference.integer_math import Float32

__all__ = ["golden_codes", "golden_images"]

_FLOATS = 1e-4
"""Of the largest logit: how far two libraries may part in a few float operations."""


def golden_images(restored: Restored, count: int) -> Float32:
    """The first validation images of a run, float32 (N, C, H, W)."""
    images, _ = next(iter(val_batches(sample_validation(restored.images, count), batch_size=count)))
    return images.numpy()


@torch.no_grad()
def golden_codes(
    view: fx.GraphModule, graph: OnnxGraph, images: Float32
) -> tuple[dict[str, Stored], Float32]:
    """Stored codes by tensor name, and logits, that float32 images (N, C, H, W) must give.

    The engine decides two things alone: codes behind float operations that lie at a rounding tie, where
    reference and engine may part and later layers would amplify it, and the last bits of logits that float
    operations compute. An engine that differs anywhere else has no say at all.
    """
    seen = probe_of(graph).observe(images)
    own = run_reference(view, images, taught=seen.codes)
    if any(tensor.mismatches for tensor in compare_computed(view, images, own, seen)):
        own = run_reference(view, images)
        return own.codes, own.logits
    kinds = producers(view)
    codes = {
        name: seen.codes[name] if kinds[name] == "float" else stored for name, stored in own.codes.items()
    }
    are_floats = LOGITS not in kinds
    is_near = np.allclose(seen.logits, own.logits, rtol=0, atol=_FLOATS * float(np.abs(own.logits).max()))
    return codes, seen.logits if are_floats and is_near else own.logits
