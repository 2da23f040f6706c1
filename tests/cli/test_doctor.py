"""doctor names what is broken or absent, and how to mend it."""

import json
import sys
from collections.abc import Callable

import pytest
from packaging.requirements import Requirement

from saq_qat.cli import environment
from saq_qat.cli.environment import Finding, package_findings, pair_finding, processor_finding

SaqQat = Callable[..., int]


def test_packages_are_ok_absent_or_broken() -> None:
    requirements = [
        Requirement("numpy>=2.0"),
        Requirement("rich>=13"),
        Requirement("typer>=0.20"),
        Requirement("jinja2>=3.1; extra == 'report'"),
    ]
    installed = {"numpy": "2.4.6", "rich": "12.0"}
    assert list(package_findings(requirements, installed.get)) == [
        Finding("numpy", "ok", "2.4.6"),
        Finding("rich", "broken", "12.0, but rich>=13 is needed", "run: pip install 'rich>=13'"),
        Finding("typer", "broken", "not installed", "run: pip install 'typer>=0.20'"),
        Finding("jinja2 (report)", "absent", "not installed", "run: pip install 'saq-qat[report]'"),
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
        ("flags : avx2 avx512_vnni\n", "int8 dot products: avx512_vnni"),
        ("Features : asimddp i8mm\n", "int8 dot products: asimddp, i8mm"),
        ("flags : avx2\n", "no int8 dot-product instructions known"),
        ("", "no int8 dot-product instructions known"),
    ],
)
def test_the_processor_is_described(flags: str, detail: str) -> None:
    assert detail in processor_finding(flags).detail


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
    assert (
        "import torchvision: RuntimeError: operator torchvision::nms does not exist; install both"
        in shown.err
    )
    assert sys.executable not in shown.err


def test_a_sound_machine_gets_a_table_and_exit_code_0(
    saq_qat: SaqQat, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        environment, "examine", lambda: [Finding("numpy", "ok", "2"), Finding("x", "absent", "no")]
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
        "no",
    ]
