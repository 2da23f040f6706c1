from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from saq_qat_runtime import session as session_module
from saq_qat_runtime.choose import BACKENDS, OpenedBundle, open_bundle
from saq_qat_runtime.engine_record import ENGINE_FILES, Flavour, record_name
from saq_qat_runtime.errors import BackendUnavailable, InputError, ModelError, RuntimeFault
from saq_qat_runtime.manifest import Manifest
from saq_qat_runtime.session import Session
from saq_qat_runtime.trt import Machine
from saq_qat_runtime.trt_library import EngineLibrary
from tests.runtime.conftest import file_record
from tests.runtime.fake_cuda import FakeDevice
from tests.runtime.fake_tensorrt import PLAN, FakeTensorRt, expected, record_of
from tests.runtime.networks import LABELS, images

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


@pytest.fixture
def workshop(bundle: Path, change_manifest: Callable[..., None]) -> Workshop:
    (bundle / TENSORRT_MODEL).write_bytes(b"the tensorrt graph")
    manifest = Manifest.load(bundle)
    models = {**manifest.models, "tensorrt": file_record(bundle / TENSORRT_MODEL)}
    golden = replace(manifest.golden, logits_tolerance={"onnxruntime": 0.0, "tensorrt": 0.5})
    change_manifest(models=models, golden=golden)
    return Workshop(bundle, FakeTensorRt(FakeDevice()), {"tensorrt", "tensorrt-lean", "tensorrt-rtx"})


@pytest.fixture
def tensorrt_only(workshop: Workshop, change_manifest: Callable[..., None]) -> Workshop:
    """A bundle of a recipe whose only target is tensorrt."""
    manifest = Manifest.load(workshop.folder)
    golden = replace(manifest.golden, logits_tolerance={"tensorrt": 0.5})
    change_manifest(models={"tensorrt": manifest.models["tensorrt"]}, golden=golden)
    return workshop


def test_takes_the_first_engine_that_can_run(workshop: Workshop) -> None:
    opened = workshop.open()
    assert (opened.backend.name, opened.target, opened.model.name) == (
        "onnxruntime",
        "onnxruntime",
        "model.onnx",
    )
    workshop.build("tensorrt-rtx")
    assert workshop.open().backend.name == "tensorrt-rtx"
    workshop.build()
    opened = workshop.open()
    assert (opened.backend.name, opened.target, opened.model.name) == ("tensorrt", "tensorrt", "model.plan")
    assert opened.skipped == ()
    batch = images(3)
    found = opened.backend.run({"image": batch})["logits"]
    np.testing.assert_allclose(found, expected(batch), rtol=1e-4, atol=1e-4)


def test_the_lean_runtime_takes_over_where_the_full_one_is_missing(workshop: Workshop) -> None:
    workshop.build(version_compatible=True)
    workshop.installed = {"tensorrt-lean"}
    opened = workshop.open()
    assert opened.backend.name == "tensorrt-lean"
    (reason,) = opened.skipped
    assert reason.startswith("tensorrt: Backend 'tensorrt' cannot be imported")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (
            lambda w: setattr(w, "gpu", False),
            "tensorrt: TensorRT engines need a GPU. There is no CUDA driver.",
        ),
        (lambda w: setattr(w.library, "__version__", "10.0.0.1"), "installed is tensorrt 10.0.0.1"),
        (lambda w: w.build(gpu="NVIDIA A100"), "was built for the GPU NVIDIA A100"),
        (lambda w: setattr(w.library, "deserializes", False), "refused model.plan"),
    ],
    ids=["no driver", "version", "gpu", "refused"],
)
def test_an_engine_that_cannot_run_here_is_passed_over_with_its_reason(
    workshop: Workshop, spoil: Callable[[Workshop], None], reason: str
) -> None:
    workshop.build()
    spoil(workshop)
    opened = workshop.open(threads=2)
    assert (opened.backend.name, opened.threads) == ("onnxruntime", 2)
    assert len(opened.skipped) == 2
    assert reason in opened.skipped[0]
    assert opened.skipped[1].startswith("tensorrt-lean: tensorrt-lean runs version-compatible engines only")


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-lean", "tensorrt-rtx"])
def test_an_engine_that_is_asked_for_by_name_is_never_replaced(workshop: Workshop, backend: str) -> None:
    with pytest.raises(BackendUnavailable, match=r"holds no engine model\.(rtx\.)?plan: .*saq-qat build"):
        workshop.open(backend)
    workshop.build(version_compatible=True)
    workshop.build("tensorrt-rtx")
    workshop.gpu = False
    with pytest.raises(BackendUnavailable, match="no CUDA driver"):
        workshop.open(backend)
    workshop.gpu = True
    assert workshop.open(backend).backend.name == backend


def damage(folder: Path) -> None:
    (folder / "model.plan").write_bytes(PLAN + b"!")


def lose_record(folder: Path) -> None:
    (folder / "model.plan.json").unlink()


def damage_record(folder: Path) -> None:
    (folder / "model.plan.json").write_text("{}")


@pytest.mark.parametrize("backend", ["auto", "tensorrt", "tensorrt-lean"])
@pytest.mark.parametrize("gpu", [True, False])
@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (damage, "was changed after it was built"),
        (lose_record, r"model\.plan\.json is missing"),
        (damage_record, "schema_version None"),
    ],
)
def test_a_damaged_engine_is_a_model_error_on_every_machine(
    workshop: Workshop, backend: str, gpu: bool, spoil: Callable[[Path], None], complaint: str
) -> None:
    workshop.build()
    workshop.gpu = gpu
    spoil(workshop.folder)
    with pytest.raises(ModelError, match=complaint):
        workshop.open(backend, verify=False)
    assert workshop.library.runtimes == []


@pytest.mark.parametrize("backend", ["auto", "tensorrt"])
def test_an_engine_of_another_bundle_is_a_model_error(workshop: Workshop, backend: str) -> None:
    workshop.build(source=file_record(workshop.folder / "model.onnx"))
    with pytest.raises(ModelError, match=r"was built from another model"):
        workshop.open(backend)


def test_an_engine_beside_a_bundle_without_that_target_is_a_model_error(
    workshop: Workshop, change_manifest: Callable[..., None]
) -> None:
    workshop.build()
    manifest = Manifest.load(workshop.folder)
    golden = replace(manifest.golden, logits_tolerance={"onnxruntime": 0.0})
    change_manifest(models={"onnxruntime": manifest.models["onnxruntime"]}, golden=golden)
    for backend in ("auto", "tensorrt"):
        with pytest.raises(ModelError, match=r"models for \['onnxruntime'\] only. Export it for 'tensorrt'"):
            workshop.open(backend)


def test_a_bundle_for_tensorrt_alone_says_what_to_do_without_an_engine(tensorrt_only: Workshop) -> None:
    with pytest.raises(ModelError, match=r"models for \['tensorrt'\] only. Export it for 'onnxruntime'"):
        tensorrt_only.open("onnxruntime")
    with pytest.raises(BackendUnavailable, match=r"No engine can run this bundle here.*saq-qat build"):
        tensorrt_only.open()
    tensorrt_only.build()
    assert tensorrt_only.open().backend.name == "tensorrt"
    tensorrt_only.gpu = False
    with pytest.raises(BackendUnavailable, match=r"tensorrt: .*no CUDA driver.* tensorrt-lean: "):
        tensorrt_only.open()


def test_threads_are_for_the_cpu(workshop: Workshop) -> None:
    workshop.build()
    for backend in set(BACKENDS) - {"onnxruntime"}:
        with pytest.raises(InputError, match="threads is for 'onnxruntime'"):
            workshop.open(backend, threads=2)
    assert workshop.open(threads=2).threads is None


@pytest.fixture
def load(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Session]:
    """Session.load on the workshop's machine."""

    def open_here(*arguments: Any, **settings: Any) -> OpenedBundle:
        return open_bundle(*arguments, **settings, machine=workshop.machine)

    monkeypatch.setattr(session_module, "open_bundle", open_here)
    return lambda **settings: Session.load(workshop.folder, **settings)


def test_a_session_runs_an_engine_and_says_so(workshop: Workshop, load: Callable[..., Session]) -> None:
    workshop.build()
    with load(threads=2, max_batch=20) as session:
        info = session.info
        assert (info.target, info.backend, info.backend_version) == ("tensorrt", "tensorrt", "10.16.1.11")
        assert (info.model.name, info.threads, info.skipped) == ("model.plan", None, ())
        np.testing.assert_allclose(session(images(20)), expected(images(20)), rtol=1e-4, atol=1e-4)
        assert session(images(0)).shape == (0, LABELS)
        assert session.integer_count().label == "partly integer (2/3 products on integer kernels)"
        with pytest.raises(InputError, match="max_batch"):
            session(images(21))
    assert workshop.library.device.live == 0


def test_a_session_tells_what_it_passed_over(workshop: Workshop, load: Callable[..., Session]) -> None:
    workshop.build()
    workshop.gpu = False
    with load() as session:
        assert session.info.backend == "onnxruntime"
        assert [reason.split(":")[0] for reason in session.info.skipped] == ["tensorrt", "tensorrt-lean"]
        session.self_test()


def test_the_self_test_uses_the_tolerance_of_its_target(
    workshop: Workshop, load: Callable[..., Session], change_manifest: Callable[..., None]
) -> None:
    workshop.build()

    def write_golden(logits: NDArray[np.float32]) -> None:
        np.savez(workshop.folder / "golden.npz", inputs=images(4), logits=logits)
        golden = replace(
            Manifest.load(workshop.folder, verify_files=False).golden,
            file=file_record(workshop.folder / "golden.npz"),
        )
        change_manifest(golden=golden)

    write_golden(expected(images(4)) + np.float32(0.4))
    with load() as session:
        assert session.self_test().largest_difference == pytest.approx(0.4, abs=1e-3)
    write_golden(expected(images(4)) + np.float32(0.6))
    with load() as session, pytest.raises(RuntimeFault, match=r"may differ by 0\.5, but differ by 0\.6"):
        session.self_test()


def test_a_fault_of_the_gpu_ends_the_session(workshop: Workshop, load: Callable[..., Session]) -> None:
    workshop.build()
    session = load()
    session(images(1))
    workshop.library.kernel_error = "cudaErrorIllegalAddress"
    with pytest.raises(RuntimeFault, match="cudaErrorIllegalAddress"):
        session(images(1))
    assert not session.healthy
    with pytest.raises(RuntimeFault, match="broke down earlier"):
        session(images(1))
    session.close()
