"""Is there a CUDA driver with a GPU? Asked of the driver alone, since engine libraries crash without one."""

import ctypes
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["DriverStatus", "driver_status"]

_LIBRARY = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"
_KERNEL_MODULE = Path("/proc/driver/nvidia/version")
_KERNEL_MODULE_VERSION = re.compile(r"\s(\d{3,}\.\d+(?:\.\d+)?)\s")
# CUdevice_attribute of cuda.h: the numbers are part of the driver's binary interface.
_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR = 75, 76
_NAME_BYTES = 256
_FIX = "Run on a machine with an NVIDIA GPU and its driver"


@dataclass(frozen=True)
class DriverStatus:
    """Whether CUDA can be used here, and on what.

    reason: why it cannot, with a fix; empty if it can. gpu: name of the first visible one; the variable
    CUDA_VISIBLE_DEVICES chooses it. compute_capability: its, such as "9.0". cuda: the newest CUDA version
    that the driver supports, such as "13.0". driver: version of the kernel module, such as "580.65.06". Each
    is None where it could not be found out.
    """

    usable: bool
    reason: str
    gpu: str | None = None
    compute_capability: str | None = None
    cuda: str | None = None
    driver: str | None = None


class _DriverError(Exception):
    """A call of the driver failed; the message is its error name."""


def driver_status(
    load: Callable[[str], Any] = ctypes.CDLL, kernel_module: Path = _KERNEL_MODULE
) -> DriverStatus:
    """Ask the CUDA driver's own library (cuda.h); neither TensorRT nor any other CUDA library is loaded.

    The driver starts in this process, which must not be forked afterwards if the child is to use the GPU.
    """
    try:
        driver = load(_LIBRARY)
    except OSError as error:
        return DriverStatus(False, f"There is no CUDA driver: {error}. {_FIX}.")
    module, cuda = _kernel_module_version(kernel_module), None
    try:
        cuda = _cuda_version(driver)
        _call(driver, driver.cuInit, 0)
        if _integer(driver, driver.cuDeviceGetCount) == 0:
            return DriverStatus(
                False, f"The CUDA driver shows no GPU. {_visible_fix()}", cuda=cuda, driver=module
            )
        gpu, capability = _first_gpu(driver)
    except _DriverError as error:
        return DriverStatus(False, f"{error}. {_visible_fix()}", cuda=cuda, driver=module)
    return DriverStatus(True, "", gpu, capability, cuda, module)


def _call(driver: Any, function: Any, *arguments: object) -> None:
    status = function(*arguments)
    if status != 0:
        text = ctypes.c_char_p()
        known = driver.cuGetErrorName(status, ctypes.byref(text)) == 0 and text.value is not None
        name = text.value.decode() if known and text.value is not None else f"error {status}"
        raise _DriverError(f"The CUDA driver failed: {function.__name__} gave {name}")


def _integer(driver: Any, function: Any, *arguments: object) -> int:
    """What a function of the driver writes through its first pointer."""
    value = ctypes.c_int()
    _call(driver, function, ctypes.byref(value), *arguments)
    return value.value


def _cuda_version(driver: Any) -> str:
    version = _integer(driver, driver.cuDriverGetVersion)
    return f"{version // 1000}.{version % 1000 // 10}"


def _first_gpu(driver: Any) -> tuple[str, str]:
    device = _integer(driver, driver.cuDeviceGet, 0)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _call(driver, driver.cuDeviceGetName, name, _NAME_BYTES, device)
    major, minor = (
        _integer(driver, driver.cuDeviceGetAttribute, attribute, device)
        for attribute in (_COMPUTE_CAPABILITY_MAJOR, _COMPUTE_CAPABILITY_MINOR)
    )
    return name.value.decode(errors="replace"), f"{major}.{minor}"


def _visible_fix() -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    hint = "" if visible is None else f"; CUDA_VISIBLE_DEVICES is {visible!r} here"
    return f"{_FIX}, and see what nvidia-smi says{hint}."


def _kernel_module_version(path: Path) -> str | None:
    try:
        found = _KERNEL_MODULE_VERSION.search(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return None if found is None else found[1]
