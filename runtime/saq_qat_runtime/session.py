"""Run a bundle: numpy in, numpy out, one engine, any number of threads."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import numpy as np
from numpy.typing import NDArray

from saq_qat_runtime.backend import Backend, check_count
from saq_qat_runtime.bundle.files import check_digest
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.bundle.records import FileRecord
from saq_qat_runtime.checks import check_batch, check_flag, check_logits, check_path
from saq_qat_runtime.choose import open_bundle
from saq_qat_runtime.errors import ModelError, RuntimeFault
from saq_qat_runtime.kernels import IntegerCount
from saq_qat_runtime.lifetime import Lifetime
from saq_qat_runtime.preprocess import ImageLike, preprocess
from saq_qat_runtime.promises import check_gate, check_interface
from saq_qat_runtime.self_test import SelfTest, TestedEngine, run_self_test

__all__ = ["Prediction", "SelfTest", "Session", "SessionInfo"]

_IMAGES_AT_ONCE = 16
_BEST = "Give 5 for the five best."


@dataclass(frozen=True)
class Prediction:
    """A label with its softmax probability and its index among the logits."""

    label: str
    probability: float
    index: int


@dataclass(frozen=True)
class SessionInfo:
    """What runs: the bundle's manifest, the file that was loaded, the engine, and the threads asked for.

    target: which of the manifest's models runs, "onnxruntime", "openvino" or "tensorrt".
    threads: None on a GPU.
    skipped: engines that "auto" passed over, each with the reason.
    """

    manifest: Manifest
    target: str
    model: FileRecord
    backend: str
    backend_version: str
    threads: int | None
    skipped: tuple[str, ...] = ()


class Session:
    """A loaded bundle. Use `Session.load`; close it, or use it as a context manager.

    Calls from many threads run at the same time. After a RuntimeFault every call raises RuntimeFault; after
    `close`, and in a process forked later, ClosedError.
    """

    def __init__(
        self,
        folder: Path,
        info: SessionInfo,
        backend: Backend,
        *,
        check_finite: bool = True,
        max_batch: int | None = None,
    ) -> None:
        self._folder = folder
        self._backend = backend
        self._check_finite = check_finite
        self._max_batch = max_batch
        self._info = info
        self._lifetime = Lifetime(backend.close)

    @classmethod
    def load(
        cls,
        folder: str | PathLike[str],
        backend: str = "auto",
        *,
        threads: int | None = None,
        verify: bool = True,
        check_finite: bool = True,
        max_batch: int | None = None,
        allow_failed_gate: bool = False,
    ) -> Self:
        """Open the bundle in `folder`.

        backend: "tensorrt", "tensorrt-lean", "tensorrt-rtx", "openvino" or "onnxruntime", which no other
        replaces; or "auto" for the first of these that the folder has a file for and that can run it on this
        machine. threads: of one call on the CPU; None leaves it to the engine.
        verify: compare every file with its SHA-256; the hash of a TensorRT engine, which is code, is always
        compared.
        check_finite: refuse NaN and infinity. max_batch: refuse larger batches.
        allow_failed_gate: load a bundle although its integers are not proved to be the trained ones.
        Raises ModelError, BackendUnavailable or InputError.
        """
        flags = {"verify": verify, "check_finite": check_finite, "allow_failed_gate": allow_failed_gate}
        for name, flag in flags.items():
            check_flag(name, flag)
        if max_batch is not None:
            check_count("max_batch", max_batch, fix="Leave it out for no limit.")
        path = check_path("folder", folder)
        manifest = Manifest.load(path, verify_files=False)
        check_gate(path, manifest, allow_failed_gate)
        opened = open_bundle(path, manifest, backend, threads=threads, verify=verify)
        engine = opened.backend
        try:
            if verify:
                _check_others(path, manifest, opened.model)
            check_interface(manifest, engine)
        except ModelError:
            engine.close()
            raise
        info = SessionInfo(
            manifest, opened.target, opened.model, engine.name, engine.version, opened.threads, opened.skipped
        )
        return cls(path, info, engine, check_finite=check_finite, max_batch=max_batch)

    @property
    def info(self) -> SessionInfo:
        """What runs."""
        return self._info

    @property
    def healthy(self) -> bool:
        """Whether calls are still accepted: not closed, and no fault so far."""
        return self._lifetime.healthy

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same as `run`."""
        return self.run(batch)

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (N, labels) of normalised float32 images (N, channels, height, width).

        An empty batch gives empty logits. Raises InputError for any other array; see `check_batch`.
        """
        spec, limit = self._info.manifest.inputs[0], self._max_batch
        return self._lifetime.call(
            lambda: self._compute(check_batch(batch, spec, max_batch=limit, finite=self._check_finite))
        )

    def predict(self, images: "ImageLike | Sequence[ImageLike]", top_k: int = 5) -> list[list[Prediction]]:
        """The `top_k` most probable labels of each image, best first; a single image is a list of one.

        All labels if there are fewer.

        An image is a path, the bytes of a file, a PIL image, or a uint8 array (height, width, channels).
        """
        check_count("top_k", top_k, fix=_BEST)
        listed = _listed(images)
        settings = self._info.manifest.preprocessing
        limit = min(self._max_batch or _IMAGES_AT_ONCE, _IMAGES_AT_ONCE)
        predictions: list[list[Prediction]] = []
        for start in range(0, len(listed), limit):
            batch = np.concatenate([preprocess(image, settings) for image in listed[start : start + limit]])
            predictions += [self.rank(logits, top_k) for logits in self.run(batch)]
        return predictions

    def rank(self, logits: NDArray[np.float32], top_k: int) -> list[Prediction]:
        """The `top_k` most probable labels, best first, of one image's logits, float32 (labels,).

        All labels if there are fewer. Raises InputError for other arrays, NaN and infinity, and for a `top_k`
        that is no integer of at least 1.
        """
        labels = self._info.manifest.labels
        check_logits(logits, len(labels))
        check_count("top_k", top_k, fix=_BEST)
        weights = np.exp(logits.astype(np.float64) - logits.max())
        order = np.argsort(-logits, kind="stable")[:top_k]
        total = weights.sum()
        return [Prediction(labels[index], float(weights[index] / total), int(index)) for index in order]

    def self_test(self) -> SelfTest:
        """Compare what is computed here with what export recorded.

        On ONNX Runtime, every code of every quantized tensor, of golden images and of probes: the model is
        loaded once more for it. Then, on any engine, the logits of the golden images as one batch.

        Raises RuntimeFault if they differ by more than allowed, after which this session computes no more;
        ModelError if a file of the bundle is damaged.
        """
        info = self._info
        label = f"{info.backend} {info.backend_version}"
        engine = TestedEngine(info.target, label, info.threads, self._compute)
        return self._lifetime.call(lambda: run_self_test(self._folder, info.manifest, engine))

    def integer_count(self) -> IntegerCount:
        """Convolutions and matrix products on integer kernels, as the engine itself counts them."""
        return self._lifetime.call(self._backend.integer_count)

    def close(self) -> None:
        """Wait for calls in flight, then release the engine; may be called twice.

        Inside a call of the same thread, as from a signal's handler, it waits for nothing: the last call that
        ends releases the engine.
        """
        self._lifetime.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _compute(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        manifest = self._info.manifest
        labels = len(manifest.labels)
        if len(batch) == 0:
            return np.zeros((0, labels), np.float32)
        logits = self._backend.run({manifest.inputs[0].name: batch})[manifest.outputs[0].name]
        if logits.shape != (len(batch), labels) or logits.dtype != np.float32:
            rule = f"The engine gave {logits.dtype} {logits.shape} instead of float32 {(len(batch), labels)}"
            raise RuntimeFault(f"{rule}. Export the bundle again.")
        return logits


def _check_others(folder: Path, manifest: Manifest, loaded: FileRecord) -> None:
    """Hashes of the files that were not hashed as they were loaded."""
    for file in manifest.files():
        if file != loaded:
            check_digest(folder, file.name, file.sha256, file.bytes)


def _listed(images: "ImageLike | Sequence[ImageLike]") -> list[ImageLike]:
    """A list of images; only lists and tuples hold several, since bytes and paths are sequences too."""
    if isinstance(images, (list, tuple)):
        return list(images)
    return [cast("ImageLike", images)]
