"""The machine a latency was measured on; None where the system does not say."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from saq_qat_runtime.processor import cpu_model

__all__ = ["Environment", "read_environment"]

_PACKAGES = ("saq-qat-runtime", "numpy", "onnxruntime", "openvino", "tensorrt", "tensorrt-rtx")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


@dataclass(frozen=True)
class Environment:
    """cores: of the machine; affinity: those this process may use; quota: of a container, in cores.

    load_average: runnable processes, mean of the last minute. versions: of the packages that are installed.
    """

    cpu: str
    architecture: str
    system: str
    python: str
    cores: int
    affinity: tuple[int, ...]
    quota: float | None
    load_average: float | None
    governor: str | None
    versions: dict[str, str]

    @property
    def usable_cores(self) -> float:
        """Cores that affinity and quota leave to this process."""
        allowed = float(len(self.affinity))
        return allowed if self.quota is None else min(allowed, self.quota)


def read_environment(packages: Sequence[str] = _PACKAGES) -> Environment:
    """Describe this machine as it is now."""
    return Environment(
        cpu=cpu_model(),
        architecture=platform.machine(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        cores=os.cpu_count() or 1,
        affinity=_affinity(),
        quota=_quota(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")),
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        governor=_text(_GOVERNOR),
        versions=_versions(packages),
    )


def _affinity() -> tuple[int, ...]:
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _quota(root: Path, membership: Path) -> float | None:
    """The smallest CPU limit, in cores, of this process's control group (version 2) and those above."""
    lines = (_text(membership) or "").splitlines()
    group = next((line[3:].strip("/") for line in lines if line.startswith("0::")), "")
    limits = []
    for folder in (root / group, *(root / group).parents):
        limit, _, period = (_text(folder / "cpu.max") or "max 0").partition(" ")
        if limit != "max":
            limits.append(int(limit) / int(period))
        if folder == root:
            break
    return min(limits, default=None)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
