"""What `saq-qat doctor` finds: Python packages, engines and the processor of this machine."""

import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.version import Version

from saq_qat_runtime.tensorrt.build.flavours import FlavourState, available_flavours
from saq_qat_runtime.tensorrt.driver import DriverStatus, driver_status

__all__ = [
    "Diagnosis",
    "driver_finding",
    "examine",
    "flavour_finding",
    "installed_version",
    "package_findings",
    "pair_finding",
    "processor_finding",
]

PROBES = {
    "torch": "from torch import cuda; print('CUDA:', cuda.is_available() and cuda.get_device_name())",
    "torchvision": "import torchvision.ops; print(torchvision.__version__)",
    "onnxruntime": "import onnxruntime as o; print('providers: ' + ', '.join(o.get_available_providers()))",
    "onnx": "import onnx.checker; print(onnx.__version__)",
}
ENGINES = {"openvino": "pip install openvino"}
INT8_FEATURES = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
VNNI_FEATURES = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
PROBE_SECONDS = 120
_NO_DOT_PRODUCTS = (
    "no int8 dot-product instructions known: integer kernels are slower; they give the trained codes, but in "
    "plain sessions not those of bundles exported with deploy.onnxruntime.cpu: vnni"
)
_PAIR = "install both from one package index: pip install --force-reinstall torch torchvision"


@dataclass(frozen=True)
class Diagnosis:
    """One thing that was looked at; `absent` things are optional, `broken` ones are needed."""

    name: str
    state: Literal["ok", "absent", "broken"]
    detail: str
    fix: str = ""


def examine() -> list[Diagnosis]:
    """Everything the commands need or can use, as found on this machine; takes some seconds."""
    try:
        requirements = [Requirement(text) for text in metadata.requires("saq-qat") or ()]
    except metadata.PackageNotFoundError:
        return [Diagnosis("saq-qat", "broken", "not installed", "run: pip install -e .")]
    with ThreadPoolExecutor() as pool:
        imports = list(pool.map(lambda item: _import_finding(*item), PROBES.items()))
    driver = driver_status()
    return [
        Diagnosis("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        processor_finding(_processor_text()),
        *package_findings(requirements, installed_version),
        *_pair_findings(installed_version),
        *imports,
        *_engine_findings(installed_version),
        driver_finding(driver),
        *map(flavour_finding, available_flavours(driver)),
    ]


def installed_version(name: str) -> str | None:
    """Version of an installed distribution, None without it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def package_findings(
    requirements: list[Requirement], version_of: Callable[[str], str | None]
) -> Iterator[Diagnosis]:
    """One finding for each package that saq-qat needs, or that one of its extras adds."""
    for requirement in requirements:
        extra = _extra(requirement)
        version = version_of(requirement.name)
        wanted = f"{requirement.name}{requirement.specifier}"
        fix = f"run: pip install 'saq-qat[{extra}]'" if extra else f"run: pip install '{wanted}'"
        name = f"{requirement.name} ({extra})" if extra else requirement.name
        if version is None:
            yield Diagnosis(name, "absent" if extra else "broken", "not installed", fix)
        elif not requirement.specifier.contains(version, prereleases=True):
            yield Diagnosis(name, "broken", f"{version}, but {wanted} is needed", fix)
        else:
            yield Diagnosis(name, "ok", version)


def _extra(requirement: Requirement) -> str | None:
    found = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", str(requirement.marker))
    return found.group(1) if found else None


def _pair_findings(version_of: Callable[[str], str | None]) -> Iterator[Diagnosis]:
    """Whether torchvision was built for this torch; silent if one of them is missing."""
    torch, torchvision = version_of("torch"), version_of("torchvision")
    if torch and torchvision:
        requirements = [Requirement(text) for text in metadata.requires("torchvision") or ()]
        yield pair_finding(torch, torchvision, requirements)


def pair_finding(torch: str, torchvision: str, torchvision_requires: list[Requirement]) -> Diagnosis:
    """Torchvision's compiled operators load only with the torch release that they were built against."""
    name = "torch and torchvision"
    wanted = next((r.specifier for r in torchvision_requires if r.name == "torch"), None)
    if wanted is not None and not wanted.contains(Version(torch).public, prereleases=True):
        return Diagnosis(
            name, "broken", f"torchvision {torchvision} needs torch{wanted}, found {torch}", _PAIR
        )
    labels = [Version(version).local or "none" for version in (torch, torchvision)]
    note = "" if labels[0] == labels[1] else f", but of different builds ({', '.join(labels)})"
    return Diagnosis(name, "ok", f"{torch} and {torchvision} are a pair{note}")


def _import_finding(package: str, program: str) -> Diagnosis:
    """Import a compiled package in a process of its own, so that a crash is a finding too."""
    name = f"import {package}"
    fix = _PAIR if package.startswith("torch") else f"run: pip install --force-reinstall {package}"
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Diagnosis(name, "broken", f"no answer within {PROBE_SECONDS} s", fix)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"the process ended with {done.returncode}"])[-1]
        return Diagnosis(name, "broken", last, fix)
    return Diagnosis(name, "ok", done.stdout.strip())


def _engine_findings(version_of: Callable[[str], str | None]) -> Iterator[Diagnosis]:
    """Other engines that networks can be compared on, all optional."""
    for engine, install in ENGINES.items():
        version = version_of(engine)
        if version is None:
            yield Diagnosis(engine, "absent", "not installed (optional)", f"to use it: {install}")
        else:
            yield Diagnosis(engine, "ok", version)


def driver_finding(driver: DriverStatus) -> Diagnosis:
    """The GPU that TensorRT would run on, and its driver."""
    if not driver.usable:
        return Diagnosis("CUDA driver", "absent", driver.reason)
    versions = f"supports CUDA {driver.cuda}, version {driver.driver or 'unknown'}"
    return Diagnosis(
        "CUDA driver", "ok", f"{driver.gpu}, compute capability {driver.compute_capability}; {versions}"
    )


def flavour_finding(state: FlavourState) -> Diagnosis:
    """What one TensorRT library can do here."""
    if state.version is None:
        return Diagnosis(state.flavour, "absent", f"{state.reason} (optional)", f"to use it: {state.install}")
    if state.runs:
        return Diagnosis(state.flavour, "ok", f"{state.version} builds and runs engines here")
    if state.builds:
        return Diagnosis(
            state.flavour, "ok", f"{state.version} builds engines here; running them takes a GPU"
        )
    return Diagnosis(state.flavour, "ok", f"{state.version}, which takes a GPU to build and to run engines")


def processor_finding(text: str) -> Diagnosis:
    """The class of the processor and what integer kernels do on it, from the text of ``/proc/cpuinfo``."""
    words = set(text.split())
    found = ", ".join(feature for feature in INT8_FEATURES if feature in words)
    if words & VNNI_FEATURES:
        detail = (
            f"x86 with VNNI; int8 dot products: {found}; every bundle gives the trained codes at full speed"
        )
    elif found:
        detail = f"ARM with int8 dot products: {found}; sums and averages round otherwise than on x86"
    elif "avx2" in words:
        detail = f"x86 with AVX2, without VNNI; {_NO_DOT_PRODUCTS}"
    elif words & {"sse4_1", "sse4_2"}:
        detail = f"x86 with SSE, without AVX2; {_NO_DOT_PRODUCTS}"
    else:
        detail = (
            "of a class not known; no int8 dot-product instructions known; integer kernels run, but slower"
        )
    return Diagnosis("processor", "ok", detail)


def _processor_text() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
