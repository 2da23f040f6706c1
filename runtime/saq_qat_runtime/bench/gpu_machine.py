"""The GPU that a measurement ran on, and its clocks as nvidia-smi tells them."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from saq_qat_runtime.tensorrt.driver import DriverStatus

__all__ = ["GpuClocks", "GpuMachine", "describe_gpu", "query_clocks", "read_gpu_machine"]

_FIELDS = ("clocks.sm", "clocks.max.sm", "clocks.mem", "temperature.gpu", "power.draw", "power.limit")
_SECONDS = 20


@dataclass(frozen=True)
class GpuClocks:
    """At one moment; MHz, degrees Celsius and watts. None where nvidia-smi does not say."""

    sm_mhz: float | None
    largest_sm_mhz: float | None
    memory_mhz: float | None
    celsius: float | None
    watts: float | None
    largest_watts: float | None


@dataclass(frozen=True)
class GpuMachine:
    """The GPU of a measurement.

    Attributes:
        name, compute_capability, driver, cuda: as the driver says, None where it does not.
        clocks: read just after the measurement, while the GPU is warm; None if unknown.
    """

    name: str
    compute_capability: str | None
    driver: str | None
    cuda: str | None
    clocks: GpuClocks | None


def read_gpu_machine(status: DriverStatus) -> GpuMachine:
    """The GPU as it is now."""
    name = status.gpu or "unknown GPU"
    return GpuMachine(name, status.compute_capability, status.driver, status.cuda, query_clocks(name))


def query_clocks(
    gpu: str, run: Callable[..., "subprocess.CompletedProcess[str]"] = subprocess.run
) -> GpuClocks | None:
    """Ask nvidia-smi; None without it, and where it knows no GPU of that name or several.

    CUDA numbers GPUs otherwise than nvidia-smi does, so that a name is all they share.
    https://docs.nvidia.com/deploy/nvidia-smi, "Selective Query Options".
    """
    command = ["nvidia-smi", f"--query-gpu=name,{','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    rows = [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines()]
    own = [row[1:] for row in rows if row[0] == gpu and len(row) == len(_FIELDS) + 1]
    return GpuClocks(*map(_number, own[0])) if done.returncode == 0 and len(own) == 1 else None


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:  # "[N/A]", for instance
        return None


def describe_gpu(machine: GpuMachine) -> list[str]:
    """Name, driver and clocks."""
    driver, cuda = machine.driver or "unknown", machine.cuda or "unknown"
    capability = machine.compute_capability or "unknown"
    return [
        f"{machine.name}, compute capability {capability}, driver {driver}, CUDA up to {cuda}",
        _clocks(machine.clocks),
    ]


def _clocks(clocks: GpuClocks | None) -> str:
    if clocks is None:
        return "clocks unknown (nvidia-smi did not say)"
    sm = f"{_whole(clocks.sm_mhz)} of {_whole(clocks.largest_sm_mhz)} MHz"
    power = f"{_whole(clocks.watts)} of {_whole(clocks.largest_watts)} W"
    return f"clocks: SM {sm}, memory {_whole(clocks.memory_mhz)} MHz, {_whole(clocks.celsius)} C, {power}"


def _whole(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0f}"
