"""Who takes part in a measurement on the CPU: the bundle on its engines, and whatever else runs images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from saq_qat_runtime.backend import Backend
from saq_qat_runtime.bench.record import BUNDLE, BUNDLE_OPENVINO, Candidate
from saq_qat_runtime.bundle.files import read
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.choose import open_bundle
from saq_qat_runtime.errors import BackendUnavailable
from saq_qat_runtime.openvino import OpenVinoBackend

__all__ = ["Images", "Run", "Runner", "bundle_runners", "engine_runner"]

Images = npt.NDArray[np.float32]
Run = Callable[[Images], npt.NDArray[np.float32]]

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
    folder: Path, manifest: Manifest, threads: int, *, backend: str = "auto"
) -> tuple[list[Runner], tuple[str, ...]]:
    """The bundle on the CPU, and why engines that it has a model for take no part.

    A bundle for ONNX Runtime alone is run by OpenVINO too, where that is installed, for its speed: its fused
    sums do not round branches as the file says, and no proof covers that.

    Args:
        backend: "auto" for every engine on the CPU, or the one that is wanted.

    Raises:
        ModelError: the bundle is damaged, or has no model for the engine that is wanted.
        BackendUnavailable: that one is missing.
    """
    found: list[Runner] = []
    missing: list[str] = []
    for name, title in _ON_CPU.items():
        if backend == name or (backend == "auto" and name in manifest.models):
            try:
                opened = open_bundle(folder, manifest, name, threads=threads, verify=True)
            except BackendUnavailable as error:
                if backend == name:
                    raise
                missing.append(f"{name}: {error}")
            else:
                found.append(engine_runner(title, _INTEGERS, opened.backend, opened.model.bytes))
    if backend == "auto" and list(manifest.models) == ["onnxruntime"]:
        found += _unproved_openvino(folder, manifest, threads)
    return found, tuple(missing)


def _unproved_openvino(folder: Path, manifest: Manifest, threads: int) -> Iterator[Runner]:
    model = manifest.models["onnxruntime"]
    try:
        backend = OpenVinoBackend(read(folder, model.name), threads=threads)
    except BackendUnavailable:
        return
    network = "the file for ONNX Runtime, whose codes OpenVINO need not keep"
    yield engine_runner(f"{model.name}, OpenVINO", network, backend, model.bytes)


def engine_runner(name: str, network: str, backend: Backend, file_bytes: int) -> Runner:
    """A loaded model as a candidate called `name`; network: what it computes."""
    image, logits = backend.inputs[0].name, backend.outputs[0].name

    def run(images: Images) -> npt.NDArray[np.float32]:
        return backend.run({image: images})[logits]

    label = f"{backend.name} {backend.version}"
    return Runner(Candidate(name, label, network, file_bytes, backend.integer_count(), None), run)
