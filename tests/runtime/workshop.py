"""A bundle for both targets, and the machine that runs it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.choose import OpenedBundle, open_bundle
from saq_qat_runtime.errors import BackendUnavailable
from saq_qat_runtime.tensorrt.backend import Machine
from saq_qat_runtime.tensorrt.engine_record import ENGINE_FILES, Flavour, record_name
from saq_qat_runtime.tensorrt.library import EngineLibrary
from tests.runtime.bundles import file_record
from tests.runtime.fake_cuda import FakeDevice
from tests.runtime.fake_tensorrt import PLAN, FakeTensorRt, record_of

__all__ = ["TENSORRT_MODEL", "Workshop"]

TENSORRT_MODEL = "model.tensorrt.onnx"


@dataclass
class Workshop:
    """A bundle for both targets, its engines, and a machine to run them on.

    installed: backends whose library can be imported.
    """

    folder: Path
    library: FakeTensorRt
    installed: set[str]
    gpu: bool = True

    @property
    def machine(self) -> Machine:
        return Machine(self._device, self._import)

    def build(self, flavour: Flavour = "tensorrt", **changes: Any) -> None:
        """Put an engine and its record into the bundle."""
        name = ENGINE_FILES[flavour]
        (self.folder / name).write_bytes(PLAN)
        fields = {"source": file_record(self.folder / TENSORRT_MODEL), "flavour": flavour, **changes}
        record = record_of(**fields)
        record = replace(record, file=replace(record.file, name=name))
        (self.folder / record_name(name)).write_text(record.to_json())

    def open(self, backend: str = "auto", *, threads: int | None = None, verify: bool = True) -> OpenedBundle:
        manifest = Manifest.load(self.folder)
        return open_bundle(
            self.folder, manifest, backend, threads=threads, verify=verify, machine=self.machine
        )

    def _device(self) -> FakeDevice:
        if not self.gpu:
            raise BackendUnavailable("TensorRT engines need a GPU. There is no CUDA driver.")
        return self.library.device

    def _import(self, library: EngineLibrary) -> FakeTensorRt:
        if library.backend not in self.installed:
            raise BackendUnavailable(f"Backend {library.backend!r} cannot be imported. {library.install}")
        return self.library
