import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.choose import BACKENDS
from saq_qat_runtime.errors import BackendUnavailable, InputError, ModelError
from tests.runtime.bundles import file_record
from tests.runtime.fake_tensorrt import PLAN, expected
from tests.runtime.networks import images
from tests.runtime.workshop import Workshop


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
    with pytest.raises(
        BackendUnavailable, match=r"holds no engine model\.(rtx\.)?plan: .*saq-qat-runtime build"
    ):
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
    with pytest.raises(
        BackendUnavailable, match=r"No engine can run this bundle here.*saq-qat-runtime build"
    ):
        tensorrt_only.open()
    tensorrt_only.build()
    assert tensorrt_only.open().backend.name == "tensorrt"
    tensorrt_only.build("tensorrt-rtx")
    (tensorrt_only.folder / "model.plan").unlink()
    tensorrt_only.gpu = False
    with pytest.raises(BackendUnavailable, match=r"^TensorRT engines need a GPU"):
        tensorrt_only.open()
    tensorrt_only.build()
    with pytest.raises(BackendUnavailable, match=r"tensorrt: .*no CUDA driver.* tensorrt-lean: "):
        tensorrt_only.open()


def test_threads_are_for_the_cpu(workshop: Workshop) -> None:
    workshop.build()
    for backend in set(BACKENDS) - {"onnxruntime", "openvino"}:
        with pytest.raises(InputError, match="threads is for 'openvino' and 'onnxruntime'"):
            workshop.open(backend, threads=2)
    assert workshop.open(threads=2).threads is None


@pytest.fixture
def with_openvino(workshop: Workshop) -> Workshop:
    """The bundle with a model for OpenVINO too."""
    folder = workshop.folder
    (folder / "model.openvino.onnx").write_bytes((folder / "model.onnx").read_bytes())
    manifest = Manifest.load(folder)
    models = {**manifest.models, "openvino": file_record(folder / "model.openvino.onnx")}
    tolerances = {**manifest.golden.logits_tolerance, "openvino": 1e-4}
    golden = replace(manifest.golden, logits_tolerance=tolerances)
    changed = replace(manifest, models=models, golden=golden)
    (folder / "manifest.json").write_text(changed.to_json())
    return workshop


def test_openvino_runs_a_bundle_that_has_a_model_for_it(with_openvino: Workshop) -> None:
    for backend in ("auto", "openvino"):
        opened = with_openvino.open(backend, threads=1)
        assert (opened.backend.name, opened.target, opened.model.name, opened.threads) == (
            "openvino",
            "openvino",
            "model.openvino.onnx",
            1,
        )
    assert with_openvino.open("onnxruntime").backend.name == "onnxruntime"


def test_onnx_runtime_takes_over_where_openvino_is_missing(
    with_openvino: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    opened = with_openvino.open()
    assert opened.backend.name == "onnxruntime"
    (reason,) = opened.skipped
    assert reason.startswith("openvino: Backend 'openvino' cannot be imported")
    with pytest.raises(BackendUnavailable, match="pip install openvino"):
        with_openvino.open("openvino")


def test_openvino_takes_no_model_made_for_another_engine(workshop: Workshop) -> None:
    with pytest.raises(ModelError, match="Export it for 'openvino'"):
        workshop.open("openvino")
