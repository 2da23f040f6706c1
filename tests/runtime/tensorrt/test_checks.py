from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saq_qat_runtime.bundle.files import sha256
from saq_qat_runtime.bundle.records import FileRecord
from saq_qat_runtime.errors import BackendUnavailable, ModelError
from saq_qat_runtime.tensorrt.checks import check_gpu, check_source, runs_version
from saq_qat_runtime.tensorrt.driver import DriverStatus
from tests.runtime.fake_cuda import H100
from tests.runtime.fake_tensorrt import record_of

A100 = replace(H100, gpu="NVIDIA A100-SXM4-80GB", compute_capability="8.0")
T4 = replace(H100, gpu="Tesla T4", compute_capability="7.5")
H200 = replace(H100, gpu="NVIDIA H200")


@pytest.mark.parametrize(
    ("built", "here", "plain", "compatible"),
    [
        ("10.16.1.11", "10.16.1.11", True, True),
        ("10.16.1.11", "10.16.1.11.post1", True, True),
        ("10.16.1.11", "10.16.2.10", False, True),
        ("10.13.3.9", "10.16.1.11", False, True),
        ("10.9.0.34", "10.16.1.11", False, True),
        ("10.16.1.11", "10.9.0.34", False, False),
        ("10.16.1.11", "11.4.0.106", False, True),
        ("11.1.0.106", "11.4.0.106", False, True),
        ("11.4.0.106", "10.16.1.11", False, False),
        ("8.6.1", "10.16.1.11", False, False),
        ("11.4.0.106", "12.0.0.1", False, False),
        ("unknown", "unknown", False, False),
    ],
)
def test_engines_run_on_their_own_version_or_on_documented_later_ones(
    built: str, here: str, plain: bool, compatible: bool
) -> None:
    assert runs_version(record_of(version=built), here) is plain
    assert runs_version(record_of(version=built, version_compatible=True), here) is compatible


@given(
    st.lists(st.integers(0, 20), min_size=3, max_size=4), st.lists(st.integers(0, 20), min_size=3, max_size=4)
)
def test_a_compatible_engine_never_runs_on_an_older_version(built: list[int], here: list[int]) -> None:
    record = record_of(version=".".join(map(str, built)), version_compatible=True)
    if here < built:
        assert not runs_version(record, ".".join(map(str, here)))


def test_an_rtx_engine_runs_on_its_own_release_alone() -> None:
    record = record_of(flavour="tensorrt-rtx", version="1.7.1.116", version_compatible=True)
    assert runs_version(record, "1.7.1.116")
    assert not runs_version(record, "1.8.0.1")


def fits(status: DriverStatus, **changes: Any) -> bool:
    try:
        check_gpu(record_of(**changes), status)
    except BackendUnavailable as error:
        assert str(status.gpu) in str(error)
        assert "saq-qat-runtime build" in str(error)
        return False
    return True


def test_an_engine_runs_on_the_model_of_gpu_it_was_built_on() -> None:
    assert fits(H100)
    assert not fits(H200)
    assert not fits(A100)
    assert not fits(replace(H100, gpu=None))
    assert not fits(H100, gpu=None)


def test_an_engine_for_a_compute_capability_runs_on_every_gpu_that_has_it() -> None:
    same = {"hardware_compatibility": "same_compute_capability", "compute_capabilities": ("9.0",)}
    assert fits(H200, **same)
    assert not fits(A100, **same)


def test_an_engine_for_ampere_and_later_runs_on_those() -> None:
    ampere = {"hardware_compatibility": "ampere_plus", "compute_capabilities": ()}
    assert fits(A100, **ampere)
    assert fits(H200, **ampere)
    assert fits(replace(H100, compute_capability="12.0"), **ampere)
    assert not fits(T4, **ampere)
    assert not fits(replace(H100, compute_capability=None), **ampere)


def test_an_rtx_engine_runs_on_the_capabilities_it_was_built_for() -> None:
    rtx = {"flavour": "tensorrt-rtx", "gpu": None, "compute_capabilities": ("8.0", "12.0")}
    assert fits(A100, **rtx)
    assert not fits(H100, **rtx)
    assert fits(H100, **{**rtx, "compute_capabilities": ()})


def test_an_engine_of_another_model_is_a_model_error() -> None:
    own = FileRecord("model.tensorrt.onnx", sha256(b"own"), 3)
    check_source(record_of(source=own), own)
    with pytest.raises(ModelError, match=r"model.plan was built from another model: .*model\.tensorrt\.onnx"):
        check_source(record_of(), own)
