"""Which TensorRT builds: Enterprise where a GPU is, else TensorRT-RTX, else a way to install one."""

from importlib import metadata

import pytest

from saq_qat_runtime.errors import BackendUnavailable
from saq_qat_runtime.tensorrt.build.flavours import (
    FlavourState,
    LibraryStatus,
    available_flavours,
    choose_flavour,
    library_status,
)
from saq_qat_runtime.tensorrt.driver import DriverStatus
from saq_qat_runtime.tensorrt.engine_record import Flavour

NO_GPU = DriverStatus(False, "There is no CUDA driver")
GPU = DriverStatus(True, "", "NVIDIA L4", "8.9", "13.0", "580.65.06")


def states(driver: DriverStatus, **versions: str) -> tuple[FlavourState, ...]:
    """As found on a machine with these libraries."""

    def library(flavour: Flavour) -> LibraryStatus:
        version = versions.get(flavour.replace("-", "_"))
        return LibraryStatus(version, "" if version else f"{flavour} is not installed")

    return available_flavours(driver, library)


def test_auto_takes_enterprise_where_a_gpu_is() -> None:
    assert choose_flavour("auto", states(GPU, tensorrt="11.4", tensorrt_rtx="1.7")) == "tensorrt"
    assert choose_flavour("auto", states(GPU, tensorrt_rtx="1.7")) == "tensorrt-rtx"


def test_auto_takes_rtx_where_enterprise_has_no_gpu() -> None:
    assert choose_flavour("auto", states(NO_GPU, tensorrt="11.4", tensorrt_rtx="1.7")) == "tensorrt-rtx"
    assert choose_flavour("auto", states(NO_GPU, tensorrt_rtx="1.7")) == "tensorrt-rtx"


def test_a_flavour_that_is_asked_for_is_never_replaced() -> None:
    both = states(GPU, tensorrt="11.4", tensorrt_rtx="1.7")
    assert choose_flavour("tensorrt-rtx", both) == "tensorrt-rtx"
    with pytest.raises(BackendUnavailable, match="TensorRT cannot build here") as raised:
        choose_flavour("tensorrt", states(NO_GPU, tensorrt="11.4", tensorrt_rtx="1.7"))
    assert "There is no CUDA driver" in str(raised.value)
    assert "Build on a machine with a GPU, or use what can build here: --flavour tensorrt-rtx" in str(
        raised.value
    )


def test_without_any_library_both_install_lines_are_given() -> None:
    with pytest.raises(BackendUnavailable) as raised:
        choose_flavour("auto", states(NO_GPU))
    message = str(raised.value)
    assert "tensorrt is not installed" in message
    assert "pip install 'saq-qat-runtime[trt]'" in message
    assert "On any machine: pip install 'saq-qat-runtime[rtx]'" in message
    assert raised.value.exit_code == 4


def test_a_missing_library_that_is_asked_for_gets_its_own_install_line() -> None:
    with pytest.raises(BackendUnavailable, match=r"Install it: pip install 'saq-qat-runtime\[rtx\]'\.$"):
        choose_flavour("tensorrt-rtx", states(NO_GPU))


def test_what_a_library_allows_depends_on_the_gpu() -> None:
    enterprise, rtx = states(NO_GPU, tensorrt="11.4", tensorrt_rtx="1.7")
    assert (enterprise.builds, enterprise.runs) == (False, False)
    assert (rtx.builds, rtx.runs) == (True, False)
    assert all(s.builds and s.runs for s in states(GPU, tensorrt="11.4", tensorrt_rtx="1.7"))


def test_an_installed_library_tells_its_version_from_a_process_of_its_own() -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the extra rtx")
    assert library_status("tensorrt-rtx") == LibraryStatus(metadata.version("tensorrt-rtx"), "")
