"""Who takes part in a measurement: the bundle on its engines, and the same network in other forms."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn

from saq_qat.bench.baselines import float_form, float_onnx, static_int8_onnx
from saq_qat.bench.record import BUNDLE, BUNDLE_OPENVINO, FLOAT, STATIC_INT8, Candidate
from saq_qat.data.batches import train_batches
from saq_qat.errors import ArtifactError
from saq_qat.train.restore import Restored
from saq_qat_runtime.backend import Backend
from saq_qat_runtime.bundle.files import read
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.choose import open_bundle
from saq_qat_runtime.errors import BackendUnavailable
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend
from saq_qat_runtime.openvino import OpenVinoBackend

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
_ON_CPU = {"onnxruntime": BUNDLE, "openvino": BUNDLE_OPENVINO}
_INTEGERS = "the bundle's integers"


@dataclass(frozen=True)
class Runner:
    """A candidate and how to run it on float32 images (N, C, H, W).

    Attributes:
        context: slow and not meant for deployment; measured in turns of its own.
    """

    candidate: Candidate
    run: Run
    context: bool = False


def bundle_runners(
    folder: Path, manifest: Manifest, threads: int, *, engine: str = "auto"
) -> tuple[list[Runner], tuple[str, ...]]:
    """The bundle on the CPU, and why engines that it has a model for take no part.

    A bundle for ONNX Runtime alone is run by OpenVINO too, where that is installed, for its speed: its fused
    sums do not round branches as the file says, and no proof covers that.

    Args:
        engine: "auto" for every engine on the CPU, or the one that is wanted.

    Raises:
        ModelError: the bundle is damaged, or has no model for the engine that is wanted.
        BackendUnavailable: that one is missing.
    """
    found: list[Runner] = []
    missing: list[str] = []
    for name, title in _ON_CPU.items():
        if engine == name or (engine == "auto" and name in manifest.models):
            try:
                opened = open_bundle(folder, manifest, name, threads=threads, verify=True)
            except BackendUnavailable as error:
                if engine == name:
                    raise
                missing.append(f"{name}: {error}")
            else:
                found.append(_engine_runner(title, _INTEGERS, opened.backend, opened.model.bytes))
    if engine == "auto" and list(manifest.models) == ["onnxruntime"]:
        found += _unproved_openvino(folder, manifest, threads)
    return found, tuple(missing)


def _unproved_openvino(folder: Path, manifest: Manifest, threads: int) -> Iterator[Runner]:
    model = manifest.models["onnxruntime"]
    try:
        backend = OpenVinoBackend(read(folder, model.name), threads=threads)
    except BackendUnavailable:
        return
    network = "the file for ONNX Runtime, whose codes OpenVINO need not keep"
    yield _engine_runner(f"{model.name}, OpenVINO", network, backend, model.bytes)


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
    backend = OnnxRuntimeBackend(content, threads=threads, any_operators=True)
    return _engine_runner(name, network, backend, len(content))


def _engine_runner(name: str, network: str, backend: Backend, file_bytes: int) -> Runner:
    image, logits = backend.inputs[0].name, backend.outputs[0].name

    def run(images: Images) -> npt.NDArray[np.float32]:
        return backend.run({image: images})[logits]

    label = f"{backend.name} {backend.version}"
    return Runner(Candidate(name, label, network, file_bytes, backend.integer_count(), None), run)


def _torch_runner(name: str, description: str, network: nn.Module) -> Runner:
    def run(images: Images) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            logits: npt.NDArray[np.float32] = network(torch.from_numpy(images)).numpy()
        return logits

    return Runner(
        Candidate(name, f"torch {torch.__version__}", description, None, None, None), run, context=True
    )
