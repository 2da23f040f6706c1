"""Who takes part in a measurement beside the bundle: the same network in other forms."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn

from saq_qat.bench.baselines import float_form, float_onnx, static_int8_onnx
from saq_qat.data.batches import train_batches
from saq_qat.errors import ArtifactError
from saq_qat.train.restore import Restored
from saq_qat_runtime.bench.record import FLOAT, STATIC_INT8, Candidate
from saq_qat_runtime.bench.runners import Images, Runner, engine_runner
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend

__all__ = [
    "FloatNetwork",
    "baseline_runners",
    "float_network",
    "with_accuracy",
]

_CALIBRATION_BATCHES = 4


@dataclass(frozen=True)
class FloatNetwork:
    """A run's network without quantizers.

    Attributes:
        calibration: float32 images (N, C, H, W) that its statistics were taken from.
    """

    network: fx.GraphModule
    onnx: bytes
    calibration: list[Images]


def float_network(restored: Restored) -> FloatNetwork:
    """Take the quantizers out of a run's network.

    Raises:
        ArtifactError: the run is in full precision.
    """
    if not isinstance(restored.network, fx.GraphModule):
        raise ArtifactError(f"There is no quantized network to measure. {restored.why_float}")
    settings, recipe = restored.images.preprocessing, restored.recipe
    batches = train_batches(restored.images, batch_size=recipe.train.batch_size, seed=recipe.seed, epoch=0)
    calibration = [images for images, _ in islice(batches, _CALIBRATION_BATCHES)]
    network = float_form(restored.network, calibration)
    content = float_onnx(network, (settings.channels, settings.image_size, settings.image_size))
    return FloatNetwork(network, content, [images.numpy() for images in calibration])


def baseline_runners(restored: Restored, form: FloatNetwork, threads: int) -> list[Runner]:
    """Float32 and static int8 on ONNX Runtime; fake-quant and float in PyTorch, for context."""
    static = static_int8_onnx(form.onnx, form.calibration)
    unquantized = "the run's weights without quantizers"
    return [
        _onnx_runner(FLOAT, unquantized, form.onnx, threads),
        _onnx_runner(STATIC_INT8, f"{unquantized}, quantized by onnxruntime.quantization", static, threads),
        _torch_runner("fake-quant, PyTorch", "as trained", restored.network),
        _torch_runner("float32, PyTorch", unquantized, form.network),
    ]


def with_accuracy(runner: Runner, batches: Iterator[tuple[Tensor, Tensor]]) -> Runner:
    """The same runner with its top-1 on labelled batches."""
    right = seen = 0
    for images, labels in batches:
        right += int((runner.run(images.numpy()).argmax(axis=1) == labels.numpy()).sum())
        seen += len(labels)
    return replace(runner, candidate=replace(runner.candidate, top1=100.0 * right / seen))


def _onnx_runner(name: str, network: str, content: bytes, threads: int) -> Runner:
    backend = OnnxRuntimeBackend(content, threads=threads, any_operators=True)
    return engine_runner(name, network, backend, len(content))


def _torch_runner(name: str, description: str, network: nn.Module) -> Runner:
    def run(images: Images) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            logits: npt.NDArray[np.float32] = network(torch.from_numpy(images)).numpy()
        return logits

    return Runner(
        Candidate(name, f"torch {torch.__version__}", description, None, None, None), run, context=True
    )
