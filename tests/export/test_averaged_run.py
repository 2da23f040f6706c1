"""A run whose weights were averaged ships the average, through the same proof."""

from pathlib import Path

import pytest
import torch

from saq_qat.train.checkpoint import read_checkpoint
from saq_qat_export.proof.prove import ProofSize
from saq_qat_export.run import export_run
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.session import Session
from tests.report.networks import trained_run

STAGES = (
    "train.stages=[{kind: float, epochs: 1, lr: 0.05}, {kind: quantized, epochs: 2, lr: 0.1}, "
    "{kind: deploy, epochs: 1, lr: 0.01}]"
)


@pytest.mark.parametrize("stages", [(), (STAGES,)], ids=["quantized", "deploy"])
def test_an_averaged_run_is_proved_and_shipped(stages: tuple[str, ...], tmp_path: Path) -> None:
    run = trained_run(tmp_path / "run", "train.ema={decay: 0.9}", *stages)
    last = read_checkpoint(run / "checkpoints" / "last")
    assert any(
        not torch.equal(last.training["weights/" + name], tensor) for name, tensor in last.model.items()
    )
    export_run(run, tmp_path / "bundle", size=ProofSize(4, 24))
    manifest = Manifest.load(tmp_path / "bundle")
    shipped = {read_checkpoint(run / "checkpoints" / which).sha256 for which in ("last", "best")}
    assert manifest.checkpoint_sha256 in shipped
    with Session.load(tmp_path / "bundle") as session:
        assert session.self_test().largest_difference == 0
