"""doctor names what is broken or absent, and how to mend it."""

import json
import sys
from collections.abc import Callable

import pytest
from packaging.requirements import Requirement

from saq_qat.cli import environment
from saq_qat.cli.environment import (
    Diagnosis,
    driver_finding,
    flavour_finding,
    package_findings,
    pair_finding,
    processor_finding,
)
from saq_qat_runtime.tensorrt.build.flavours import FlavourState
from saq_qat_runtime.tensorrt.driver import DriverStatus

SaqQat = Callable[..., int]


def test_packages_are_ok_absent_or_broken() -> None:
    requirements = [
        Requirement("numpy>=2.0"),
        Requirement("rich>=13"),
        Requirement("typer>=0.20"),
        Requirement("timm>=1.0; extra == 'vit'"),
    ]
    installed = {"numpy": "2.4.6", "rich": "12.0"}
    assert list(package_findings(requirements, installed.get)) == [
        Diagnosis("numpy", "ok", "2.4.6"),
        Diagnosis("rich", "broken", "12.0, but rich>=13 is needed", "run: pip install 'rich>=13'"),
        Diagnosis("typer", "broken", "not installed", "run: pip install 'typer>=0.20'"),
        Diagnosis("timm (vit)", "absent", "not installed", "run: pip install 'saq-qat[vit]'"),
    ]


@pytest.mark.parametrize(
    ("torch", "torchvision", "state", "detail"),
    [
        ("2.15.0", "0.29.2", "ok", "2.15.0 and 0.29.2 are a pair"),
        ("2.15.0+cpu", "0.29.2+cpu", "ok", "2.15.0+cpu and 0.29.2+cpu are a pair"),
        ("2.15.0+cpu", "0.29.2", "ok", "a pair, but of different builds (cpu, none)"),
        ("2.14.0", "0.29.2", "broken", "torchvision 0.29.2 needs torch==2.15.0, found 2.14.0"),
    ],
)
def test_torch_and_torchvision_must_be_a_pair(torch: str, torchvision: str, state: str, detail: str) -> None:
    finding = pair_finding(torch, torchvision, [Requirement("numpy"), Requirement("torch==2.15.0")])
    assert finding.state == state
    assert detail in finding.detail


@pytest.mark.parametrize(
    ("flags", "detail"),
    [
        ("flags : avx2 avx512_vnni\n", "x86 with VNNI; int8 dot products: avx512_vnni"),
        ("Features : asimddp i8mm\n", "int8 dot products: asimddp, i8mm"),
        ("flags : avx2\n", "AVX2, without VNNI; no int8 dot-product instructions known"),
        ("flags : sse4_1 sse4_2\n", "x86 with SSE, without AVX2"),
        ("", "no int8 dot-product instructions known"),
    ],
)
def test_the_processor_is_described(flags: str, detail: str) -> None:
    assert detail in processor_finding(flags).detail


@pytest.mark.parametrize(
    ("state", "finding"),
    [
        (
            FlavourState("tensorrt", None, builds=False, runs=False, reason="not installed"),
            Diagnosis(
                "tensorrt", "absent", "not installed (optional)", "to use it: pip install 'saq-qat-runtime[trt]'"
            ),
        ),
        (
            FlavourState("tensorrt", "11.4.0", builds=False, runs=False, reason="no driver"),
            Diagnosis("tensorrt", "ok", "11.4.0, which takes a GPU to build and to run engines"),
        ),
        (
            FlavourState("tensorrt", "11.4.0", builds=True, runs=True, reason=""),
            Diagnosis("tensorrt", "ok", "11.4.0 builds and runs engines here"),
        ),
        (
            FlavourState("tensorrt-rtx", "1.7.1", builds=True, runs=False, reason="no driver"),
            Diagnosis("tensorrt-rtx", "ok", "1.7.1 builds engines here; running them takes a GPU"),
        ),
    ],
)
def test_a_tensorrt_library_is_told_by_what_it_allows_here(state: FlavourState, finding: Diagnosis) -> None:
    assert flavour_finding(state) == finding


def test_the_gpu_is_named_with_its_driver_or_the_reason_why_there_is_none() -> None:
    driver = DriverStatus(True, "", "NVIDIA L4", "8.9", "13.0", "580.65.06")
    found = driver_finding(driver)
    assert (found.state, found.name) == ("ok", "CUDA driver")
    assert found.detail == "NVIDIA L4, compute capability 8.9; supports CUDA 13.0, version 580.65.06"
    absent = driver_finding(DriverStatus(False, "There is no CUDA driver: no file. Get one."))
    assert absent == Diagnosis("CUDA driver", "absent", "There is no CUDA driver: no file. Get one.")


def test_a_package_that_does_not_import_is_broken(
    saq_qat: SaqQat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        environment,
        "PROBES",
        {
            "torchvision": "raise RuntimeError('operator torchvision::nms does not exist')",
            "onnx": "import os; os.abort()",
            "onnxruntime": "print('fine')",
        },
    )
    assert saq_qat("doctor", "--json") == 4
    shown = capsys.readouterr()
    states = {f["name"]: (f["state"], f["detail"]) for f in json.loads(shown.out)}
    assert states["import torchvision"] == (
        "broken",
        "RuntimeError: operator torchvision::nms does not exist",
    )
    assert states["import onnx"] == ("broken", "the process ended with -6")
    assert states["import onnxruntime"] == ("ok", "fine")
    assert states["python"][0] == states["processor"][0] == "ok"
    assert {"CUDA driver", "tensorrt", "tensorrt-rtx"} <= states.keys()
    assert (
        "import torchvision: RuntimeError: operator torchvision::nms does not exist; install both"
        in shown.err
    )
    assert sys.executable not in shown.err


def test_a_sound_machine_gets_a_table_and_exit_code_0(
    saq_qat: SaqQat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        environment, "examine", lambda: [Diagnosis("numpy", "ok", "2"), Diagnosis("x", "absent", "no[rtx]")]
    )
    assert saq_qat("doctor") == 0
    assert capsys.readouterr().out.split() == [
        "state",
        "what",
        "found",
        "ok",
        "numpy",
        "2",
        "absent",
        "x",
        "no[rtx]",
    ]
