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
from saq_qat.bench.record import BUNDLE, FLOAT, STATIC_INT8, Contestant
from saq_qat.data.batches import train_batches
from saq_qat.errors import ArtifactError
from saq_qat.train.restore import Restored
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.choose import open_bundle
from saq_qat_runtime.kernels import IntegerCount
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend

__all__ = [
    "Entrant",
    "FloatNetwork",
    "Images",
    "baseline_entrants",
    "bundle_entrants",
    "float_network",
    "with_accuracy",
]

Images = npt.NDArray[np.float32]
Run = Callable[[Images], npt.NDArray[np.float32]]

_CALIBRATION_BATCHES = 4


@dataclass(frozen=True)
class Entrant:
    """A contestant and how to run it on float32 images (N, C, H, W).

    Attributes:
        context: slow and not meant for deployment; measured in turns of its own.
    """

    contestant: Contestant
    run: Run
    context: bool = False


class _Engine(Protocol):
    @property
    def version(self) -> str: ...

    def integer_count(self) -> IntegerCount: ...


def bundle_entrants(folder: Path, manifest: Manifest, threads: int) -> list[Entrant]:
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

    found = [_entrant(BUNDLE, network, "onnxruntime", backend, model.bytes, run)]
    if openvino_installed():
        other = OpenVinoModel((folder / model.name).read_bytes(), threads=threads)
        found.append(_entrant("bundle, OpenVINO", network, "openvino", other, model.bytes, other.run))
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


def baseline_entrants(restored: Restored, form: FloatNetwork, threads: int) -> list[Entrant]:
    """Float32 and static int8 on ONNX Runtime; fake-quant and float in PyTorch, for context."""
    static = static_int8_onnx(form.onnx, form.calibration)
    unquantized = "the run's weights without quantizers"
    return [
        _onnx_entrant(FLOAT, unquantized, form.onnx, threads),
        _onnx_entrant(STATIC_INT8, f"{unquantized}, quantized by onnxruntime.quantization", static, threads),
        _torch_entrant("fake-quant, PyTorch", "as trained", restored.network),
        _torch_entrant("float32, PyTorch", unquantized, form.network),
    ]


def with_accuracy(entrant: Entrant, batches: Iterator[tuple[Tensor, Tensor]]) -> Entrant:
    """The same entrant with its top-1 on labelled batches."""
    right = seen = 0
    for images, labels in batches:
        right += int((entrant.run(images.numpy()).argmax(axis=1) == labels.numpy()).sum())
        seen += len(labels)
    return replace(entrant, contestant=replace(entrant.contestant, top1=100.0 * right / seen))


def _onnx_entrant(name: str, network: str, content: bytes, threads: int) -> Entrant:
    backend = OnnxRuntimeBackend(content, threads=threads)
    image, logits = backend.inputs[0].name, backend.outputs[0].name

    def run(images: Images) -> npt.NDArray[np.float32]:
        return backend.run({image: images})[logits]

    return _entrant(name, network, "onnxruntime", backend, len(content), run)


def _entrant(name: str, network: str, package: str, engine: _Engine, file_bytes: int, run: Run) -> Entrant:
    label = f"{package} {engine.version}"
    return Entrant(Contestant(name, label, network, file_bytes, engine.integer_count(), None), run)


def _torch_entrant(name: str, description: str, network: nn.Module) -> Entrant:
    def run(images: Images) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            logits: npt.NDArray[np.float32] = network(torch.from_numpy(images)).numpy()
        return logits

    return Entrant(
        Contestant(name, f"torch {torch.__version__}", description, None, None, None), run, context=True
    )
