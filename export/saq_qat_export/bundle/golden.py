"""Golden codes: what the integer reference computes, whatever engine is at hand; how far one may be off."""

from collections.abc import Iterable

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

__all__ = ["golden_codes", "golden_images", "logits_tolerances"]

_FLOATS = 1e-4
"""Of the largest logit: how far two libraries may part in a few float operations."""

_LOGITS_TOLERANCE = 1e-5
# A GPU rounds ties otherwise and later layers amplify that: this finds a wrong engine, not a rounding.
_SHARE_OF_LARGEST_LOGIT = 0.1
# OpenVINO rounds a rare tie otherwise, on other CPUs another one.
_SHARE_AT_TIES = 0.05
# How many values of an image are moved, one of so many, to see how far a few codes carry: more than lie at
# ties, which are some in a million. Ties may move logits elsewhere, but hardly twice as far.
_MOVED = 1000
_AS_FAR_AS_MOVED = 2
_LEVELS = 127


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


def logits_tolerances(
    targets: Iterable[str], graph: OnnxGraph, images: Float32, logits: Float32
) -> dict[str, float]:
    """How far the logits of a golden image may be off, target by target.

    OpenVINO's may lie 5 % of the largest off, or twice as far as a code here and there moves them if that is
    more. A network that has learned nothing may carry a single code as far as logits go: a test of its logits
    then shows no more than that they are of the right size.
    """
    largest = float(np.abs(logits).max())
    tolerances = {"onnxruntime": _LOGITS_TOLERANCE, "tensorrt": _SHARE_OF_LARGEST_LOGIT * largest}
    if "openvino" in targets:
        carried = _AS_FAR_AS_MOVED * _carried(graph, images, logits)
        tolerances["openvino"] = max(_LOGITS_TOLERANCE, _SHARE_AT_TIES * largest, carried)
    return {target: tolerances[target] for target in targets}


def _carried(graph: OnnxGraph, images: Float32, logits: Float32) -> float:
    """How far ONNX Runtime's logits move if one value in a thousand is 1/127 of the largest up."""
    moved = images.copy()
    moved.reshape(-1)[::_MOVED] += np.abs(images).max() / _LEVELS
    _, found = probe_of(graph).run(moved)
    return float(np.abs(found - logits).max())
