"""Who takes part in a measurement: the bundle on its engines, and the same network in other forms."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn

from saq_qat.bench.baselines import float_form, float_onnx, static_int8_onnx
from saq_qat.bench.openvino import OpenVinoModel, openvino_installed
from saq_qat.bench.record import BUNDLE, FLOAT, STATIC_INT8, Candidate
from saq_qat.data.batches import train_batches
from saq_qat.errors import ArtifactError
from saq_qat.train.restore import Restored
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.choose import open_bundle
from saq_qat_runtime.kernels import IntegerCount
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend

__all__ = [
    "FloatNetwork",
    "Images",
    "Runner",
    "baseline_runners",
    "bundle_runners",
    "float_network",
    "with_accuracy",
]

Images = npt.NDArray[np.float32]
Run = Callable[[Images], npt.NDArray[np.float32]]

_CALIBRATION_BATCHES = 4


@dataclass(frozen=True)
class Runner:
    """A candidate and how to run it on float32 images (N, C, H, W).

    Attributes:
        context: slow and not meant for deployment; measured in turns of its own.
    """

    candidate: Candidate
    run: Run
    context: bool = False


class _Engine(Protocol):
    @property
    def version(self) -> str: ...

    def integer_count(self) -> IntegerCount: ...


def bundle_runners(folder: Path, manifest: Manifest, threads: int) -> list[Runner]:
    """The bundle on ONNX Runtime, first, and on OpenVINO where that is installed.

    Raises:
        ModelError: the bundle is damaged. BackendUnavailable: onnxruntime is missing.
    """
    opened = open_bundle(folder, manifest, "onnxruntime", threads=threads, verify=True)
    backend, model = opened.backend, opened.model
    image, logits = manifest.inputs[0].name, manifest.outputs[0].name
    network = "the bundle's integers"

    def run(images: Images) -> npt.NDArray[np.float32]:
        return backend.run({image: images})[logits]

    found = [_runner(BUNDLE, network, "onnxruntime", backend, model.bytes, run)]
    if openvino_installed():
        other = OpenVinoModel((folder / model.name).read_bytes(), threads=threads)
        found.append(_runner("bundle, OpenVINO", network, "openvino", other, model.bytes, other.run))
    return found


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
        raise ArtifactError(
            f"{restored.run}: trained in full precision, so there is no quantized network to measure."
        )
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
    backend = OnnxRuntimeBackend(content, threads=threads)
    image, logits = backend.inputs[0].name, backend.outputs[0].name

    def run(images: Images) -> npt.NDArray[np.float32]:
        return backend.run({image: images})[logits]

    return _runner(name, network, "onnxruntime", backend, len(content), run)


def _runner(name: str, network: str, package: str, engine: _Engine, file_bytes: int, run: Run) -> Runner:
    label = f"{package} {engine.version}"
    return Runner(Candidate(name, label, network, file_bytes, engine.integer_count(), None), run)


def _torch_runner(name: str, description: str, network: nn.Module) -> Runner:
    def run(images: Images) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            logits: npt.NDArray[np.float32] = network(torch.from_numpy(images)).numpy()
        return logits

    return Runner(
        Candidate(name, f"torch {torch.__version__}", description, None, None, None), run, context=True
    )
