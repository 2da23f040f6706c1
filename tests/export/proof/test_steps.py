import re
from pathlib import Path

import pytest

from saq_qat_export.proof.prove import ProofSize
from saq_qat_export.proof.steps import Steps
from saq_qat_export.run import export_run
from tests.report.networks import trained_run


def test_steps_are_numbered_and_images_say_how_long_they_take(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 13.0, 20.0])
    monkeypatch.setattr("saq_qat_export.proof.steps.time.monotonic", lambda: next(clock))
    told: list[str] = []
    steps = Steps(told.append, 2)
    steps("codes")
    steps("predictions")
    steps.images(30, 100)
    steps.images(100, 100)
    assert told == [
        "1/2 codes",
        "2/2 predictions",
        "30/100 images, 7 s left, 2/2 predictions",
        "100/100 images, 0 s left, 2/2 predictions",
    ]


@pytest.mark.parametrize("targets", ["onnxruntime, tensorrt", "openvino"])
def test_a_proof_counts_its_steps_to_their_end(tmp_path: Path, targets: str) -> None:
    told: list[str] = []
    run = trained_run(tmp_path / "run", f"deploy.targets=[{targets}]")
    export_run(run, run / "export", size=ProofSize(1, 40), allow_failed_gate=True, on_step=told.append)
    steps = [re.match(r"(\d+)/(\d+) (?!images)", text) for text in told]
    numbers = [(int(step[1]), int(step[2])) for step in steps if step is not None]
    assert numbers == [(number, len(numbers)) for number in range(1, len(numbers) + 1)]
    assert any(text.startswith("40/40 images, 0 s left, ") for text in told)
