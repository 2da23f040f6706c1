"""The float32 network of a run as one ONNX file, compared with PyTorch before it is written."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from torch import nn

from saq_qat.bench.baselines import float_onnx
from saq_qat.bench.engines import float_network
from saq_qat.data.batches import val_batches
from saq_qat.data.sample import sample_validation
from saq_qat.errors import ArtifactError, GateError
from saq_qat.quant.trace.tracer import trace
from saq_qat.train.choose import CheckpointName, Choice, choose_checkpoint
from saq_qat.train.files import write_whole
from saq_qat.train.restore import Restored, restore
from saq_qat_export.graph.onnx_graph import INPUT, OUTPUT, PRODUCER
from saq_qat_runtime.bundle.regular_file import read_regular
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend

__all__ = ["FloatFile", "export_float"]

_TOLERANCE = 1e-3
"""Of the largest logit: sums in another order, through tens of layers."""
_BATCH = 32


@dataclass(frozen=True)
class FloatFile:
    """What was written.

    Attributes:
        network: whose weights these are, in words.
        images: validation images that were classified.
        top1: percent, of the file on ONNX Runtime.
        largest_difference: of a logit between ONNX Runtime and PyTorch.
    """

    choice: Choice
    path: Path
    bytes: int
    network: str
    images: int
    top1: float
    largest_difference: float


def export_float(
    run: Path, path: Path, *, checkpoint: CheckpointName | None = None, images: int | None = None
) -> FloatFile:
    """Write the float32 network of a run to ``path``.

    Of a run in full precision that is the network itself. Of a quantized run it is the network with its
    quantizers taken out: the weights behind the codes, clipped at their clip levels and not rounded,
    activations neither clipped nor rounded, and BatchNorm's statistics estimated again on training images. It
    is what bench calls float32. It was never trained so: its accuracy is not that of a float training.

    Args:
        checkpoint: the best of the run's last stage if None.
        images: of validation, that are classified; all if None.

    Raises:
        ArtifactError: the run cannot be restored, or a file of the user's lies at ``path``.
        GateError: ONNX Runtime computes other logits than PyTorch; nothing is written.
    """
    _check_place(path)
    choice = choose_checkpoint(run, checkpoint)
    restored = restore(run, choice.taken.name)
    network, content, described = _float_network(restored)
    backend = OnnxRuntimeBackend(content, any_operators=True)
    right = seen = 0
    difference = largest = 0.0
    for batch, labels in val_batches(sample_validation(restored.images, images), batch_size=_BATCH):
        with torch.inference_mode():
            expected = network(batch).numpy()
        found = backend.run({INPUT: batch.numpy()})[OUTPUT]
        difference = max(difference, float(np.abs(found - expected).max()))
        largest = max(largest, float(np.abs(expected).max()))
        right += int((found.argmax(axis=1) == labels.numpy()).sum())
        seen += len(labels)
    if not difference <= _TOLERANCE * largest:
        raise GateError(
            f"ONNX Runtime and PyTorch must give the same logits, within {_TOLERANCE:g} of the largest "
            f"({largest:.3g}); they differ by {difference:.3g}, so {path} was not written."
        )
    write_whole(path, content)
    return FloatFile(choice, path, len(content), described, seen, 100.0 * right / seen, difference)


def _check_place(path: Path) -> None:
    """Only an earlier float32 graph of this project is replaced; its producer and its operators tell."""
    if os.path.lexists(path) and not _is_float_graph_of_ours(path):
        raise ArtifactError(
            f"{path}: the float32 graph replaces the file it is written to, and this is no float32 graph "
            "that saq-qat wrote, so it is yours. Move it elsewhere, or name another file with --output."
        )


def _is_float_graph_of_ours(path: Path) -> bool:
    try:
        model = onnx.load_model_from_string(read_regular(path), format="protobuf")
    except (OSError, DecodeError):
        return False
    quantized = any(node.op_type == "DequantizeLinear" for node in model.graph.node)
    return model.producer_name == PRODUCER and not quantized


def _float_network(restored: Restored) -> tuple[nn.Module, bytes, str]:
    """The network in evaluation mode, its graph, and what it is."""
    if restored.form != "float":
        form = float_network(restored)
        return form.network, form.onnx, "the run's weights without quantizers"
    settings = restored.images.preprocessing
    shape = (settings.channels, settings.image_size, settings.image_size)
    network = trace(restored.network, shape).eval()
    return network, float_onnx(network, shape), "as trained, in full precision"
