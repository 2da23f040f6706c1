import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from saq_qat_runtime.tensorrt.driver import DriverStatus, driver_status

MODULE_VERSION = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (builder)\n"
)


class FakeDriver:
    """The CUDA driver's functions, as ctypes shows them: pointers in, an error number out."""

    def __init__(self, *, devices: int = 1, fails: str = "", status: int = 999) -> None:
        self._devices = devices
        self._fails = fails
        self._status = status

    def __getattr__(self, name: str) -> Callable[..., int]:
        def function(*arguments: Any) -> int:
            if name == self._fails:
                return self._status
            answer: int = getattr(self, f"_{name}")(*arguments)
            return answer

        function.__name__ = name
        return function

    def _cuInit(self, flags: int) -> int:  # noqa: N802  the driver's own names
        return int(flags != 0)

    def _cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        version._obj.value = 13010
        return 0

    def _cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self._devices
        return 0

    def _cuDeviceGet(self, device: Any, ordinal: int) -> int:  # noqa: N802
        device._obj.value = ordinal + 7
        return 0

    def _cuDeviceGetName(self, name: Any, size: int, device: int) -> int:  # noqa: N802
        assert device == 7
        name.value = b"NVIDIA H100 80GB HBM3"[: size - 1]
        return 0

    def _cuDeviceGetAttribute(self, value: Any, attribute: int, device: int) -> int:  # noqa: N802
        assert device == 7
        value._obj.value = {75: 9, 76: 0}[attribute]
        return 0

    def _cuGetErrorName(self, status: int, text: Any) -> int:  # noqa: N802
        names = {100: b"CUDA_ERROR_NO_DEVICE"}
        text._obj.value = names.get(status)
        return int(status not in names)


def status_of(driver: FakeDriver, kernel_module: Path = Path("/nowhere")) -> DriverStatus:
    return driver_status(lambda name: driver, kernel_module)


def test_describes_the_first_visible_gpu(tmp_path: Path) -> None:
    (tmp_path / "version").write_text(MODULE_VERSION + "GCC version: gcc 13.2.0\n")
    assert status_of(FakeDriver(), tmp_path / "version") == DriverStatus(
        True, "", "NVIDIA H100 80GB HBM3", "9.0", "13.1", "580.65.06"
    )


def test_a_kernel_module_that_says_nothing_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "version").write_text("nothing known")
    assert status_of(FakeDriver(), tmp_path / "version").driver is None
    assert status_of(FakeDriver()).usable


def test_a_machine_without_the_drivers_library_is_told_what_it_lacks() -> None:
    def fail(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    status = driver_status(fail)
    assert not status.usable
    assert "no CUDA driver: " in status.reason
    assert "NVIDIA GPU and its driver" in status.reason


@pytest.mark.parametrize(
    ("driver", "complaint"),
    [
        (FakeDriver(devices=0), "shows no GPU"),
        (FakeDriver(fails="cuInit", status=100), "cuInit gave CUDA_ERROR_NO_DEVICE"),
        (FakeDriver(fails="cuDeviceGetName"), "cuDeviceGetName gave error 999"),
    ],
)
def test_a_driver_without_a_gpu_is_not_usable(
    driver: FakeDriver, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    status = status_of(driver)
    assert not status.usable
    assert complaint in status.reason
    assert "CUDA_VISIBLE_DEVICES is '-1' here" in status.reason
    assert status.cuda == "13.1"


def test_a_driver_that_cannot_tell_its_version_is_not_usable() -> None:
    assert status_of(FakeDriver(fails="cuDriverGetVersion")).cuda is None


def test_asking_leaves_the_process_alive_and_loads_no_engine() -> None:
    code = (
        "import sys\nfrom saq_qat_runtime.tensorrt.driver import driver_status\n"
        "status = driver_status()\nprint(status.usable == (status.reason == ''))\n"
        "print(*(name for name in sys.modules if name.startswith(('tensorrt', 'cuda', 'numpy'))))"
    )
    environment = {"PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["True"]), done.stderr


def test_loads_the_library_by_its_stable_name() -> None:
    asked: list[str] = []

    def load(name: str) -> FakeDriver:
        asked.append(name)
        return FakeDriver()

    driver_status(load)
    assert asked == ["libcuda.so.1"] or sys.platform == "win32"
