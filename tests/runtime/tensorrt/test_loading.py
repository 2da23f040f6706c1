from dataclasses import replace
from typing import Any

import pytest

from saq_qat_runtime.errors import BackendUnavailable, InputError, ModelError
from saq_qat_runtime.tensorrt.backend import Machine, TensorRtBackend
from saq_qat_runtime.tensorrt.library import ENGINE_LIBRARIES, engine_log
from tests.runtime.engines import LEAN, TENSORRT, backend_of, check_logits, machine_of
from tests.runtime.fake_cuda import FakeDevice
from tests.runtime.fake_tensorrt import PLAN, DataType, FakeTensorRt, Severity, record_of
from tests.runtime.networks import SIDE, images


@pytest.fixture
def library() -> FakeTensorRt:
    return FakeTensorRt(FakeDevice())


def no_device() -> FakeDevice:
    raise BackendUnavailable("TensorRT engines need a GPU. There is no CUDA driver.")


@pytest.mark.parametrize("library", ENGINE_LIBRARIES, ids=lambda library: library.backend)
def test_without_a_driver_no_library_is_touched_or_even_imported(library: Any) -> None:
    record = record_of(flavour=library.flavour, version_compatible=library.only_version_compatible)

    def imported(_: object) -> Any:
        raise AssertionError("imported")

    with pytest.raises(BackendUnavailable, match="no CUDA driver"):
        TensorRtBackend(PLAN, record, library, machine=Machine(no_device, imported))


@pytest.mark.parametrize(
    ("content", "changes", "version", "error", "complaint"),
    [
        (PLAN + b"!", {}, "10.16.1.11", ModelError, r"model.plan was changed after it was built"),
        (PLAN[:-1] + b"?", {}, "10.16.1.11", ModelError, r"was changed.*saq-qat-runtime build"),
        (
            PLAN,
            {},
            "10.16.1.12",
            BackendUnavailable,
            r"needs exactly this version; installed is tensorrt 10.16.1.12",
        ),
        (
            PLAN,
            {"gpu": "NVIDIA A100"},
            "10.16.1.11",
            BackendUnavailable,
            r"the GPU NVIDIA A100; here is NVIDIA H100",
        ),
        (PLAN, {"flavour": "tensorrt-rtx"}, "10.16.1.11", BackendUnavailable, r"an engine for tensorrt-rtx"),
    ],
)
def test_an_engine_that_does_not_belong_here_is_never_deserialized(
    library: FakeTensorRt,
    content: bytes,
    changes: dict[str, Any],
    version: str,
    error: type[Exception],
    complaint: str,
) -> None:
    library.__version__ = version
    with pytest.raises(error, match=complaint):
        TensorRtBackend(content, record_of(**changes), TENSORRT, machine=machine_of(library))
    assert library.runtimes == []


def test_the_lean_runtime_takes_version_compatible_engines_only(library: FakeTensorRt) -> None:
    with pytest.raises(
        BackendUnavailable, match=r"tensorrt-lean runs version-compatible engines only.*recipe"
    ):
        TensorRtBackend(PLAN, record_of(), LEAN, machine=machine_of(library))
    assert library.runtimes == []
    backend = TensorRtBackend(PLAN, record_of(version_compatible=True), LEAN, machine=machine_of(library))
    check_logits(backend, 3)
    assert backend.name == "tensorrt-lean"


@pytest.mark.parametrize("compatible", [True, False])
def test_an_engine_brings_host_code_along_only_where_it_must(library: FakeTensorRt, compatible: bool) -> None:
    record = record_of(version_compatible=compatible)
    TensorRtBackend(PLAN, record, TENSORRT, machine=machine_of(library))
    (runtime,) = library.runtimes
    assert runtime.engine_host_code_allowed is compatible
    assert runtime.content == PLAN


def test_an_engine_the_library_refuses_is_unavailable_in_the_librarys_words(library: FakeTensorRt) -> None:
    library.deserializes = False
    with pytest.raises(
        BackendUnavailable, match=r"refused model.plan: .*Code 6: magic tag does not match\. Build"
    ):
        backend_of(library)


def test_older_messages_of_the_library_are_not_taken_for_the_reason(library: FakeTensorRt) -> None:
    error: Any = Severity.ERROR
    engine_log(library.module).listener.log(error, "of another engine, long ago")
    library.deserializes = False
    with pytest.raises(BackendUnavailable) as caught:
        backend_of(library)
    assert "long ago" not in str(caught.value)


def test_a_library_that_does_not_start_is_unavailable(library: FakeTensorRt) -> None:
    def fail(logger: object) -> None:
        raise TypeError("factory function returned nullptr")

    library.Runtime = fail
    with pytest.raises(BackendUnavailable, match=r"tensorrt cannot start: .*nullptr"):
        backend_of(library)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"dtype": DataType.HALF}, "image is float16; this runtime exchanges float32 only"),
        ({"dtype": DataType.BF16}, "image is bfloat16"),
        ({"dtype": DataType.FP4}, "image is float4_e2m1fn"),
        ({"image_shape": (-1, 3, -1, SIDE)}, r"only the batch may be dynamic"),
        ({"profiles": 2}, "2 optimization profiles, this runtime uses one"),
    ],
)
def test_an_engine_with_another_interface_is_a_model_error(
    library: FakeTensorRt, changes: dict[str, Any], complaint: str
) -> None:
    vars(library).update(changes)
    with pytest.raises(ModelError, match=complaint):
        backend_of(library)


def test_an_engine_of_one_fixed_batch_runs_that_batch(library: FakeTensorRt) -> None:
    library.image_shape, library.batch = (4, 3, SIDE, SIDE), (4, 4)
    backend = backend_of(library)
    assert backend.inputs[0].shape == (4, 3, SIDE, SIDE)
    check_logits(backend, 8)
    with pytest.raises(InputError, match="4 to 4 inputs"):
        backend.run({"image": images(3)})


def test_the_record_is_not_what_is_run(library: FakeTensorRt) -> None:
    """Shapes come from the engine: a record edited by hand cannot make buffers too small."""
    wrong = replace(record_of(), profiles=())
    check_logits(TensorRtBackend(PLAN, wrong, TENSORRT, machine=machine_of(library)), 8)
