"""Studies whose runs are moved into place by a stub instead of being trained."""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from saq_qat.analysis.study.run import Prepared, prepare_study
from saq_qat.recipe.load import dump_recipe
from saq_qat.train.checkpoint import Checkpoint, Position, read_checkpoint, write_checkpoint
from saq_qat.train.state_file import progress_at_start
from tests.analysis.study.results import measured
from tests.train.small_recipe import SMALL_RECIPE

STUB = Path(__file__).with_name("stub_command.py")
STUDY = """
version: 1
name: small
recipe: recipe.yaml
seeds: [0, 1]
arms:
  a: {}
  b: {overrides: {train.stages.0.lr: 0.2}}
comparisons: [{of: b, against: a}]
"""


class Stub:
    """A study in ``folder`` and what its command is told to do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.command: tuple[str, ...] = (sys.executable, str(STUB))
        (folder / "recipe.yaml").write_text(SMALL_RECIPE)
        self.prepared = self.prepare()
        self.lay_out()

    def prepare(self, text: str = STUDY, **options: Any) -> Prepared:
        path = self.folder / "study.yaml"
        path.write_text(text)
        return prepare_study(path, (), self.folder / "studies", **options)

    def lay_out(self, prepared: Prepared | None = None) -> None:
        """What runs are made of: resolved recipes, one checkpoint for all, measurements that name it."""
        checkpoint = self.folder / "checkpoint"
        if not checkpoint.exists():
            write_checkpoint(
                checkpoint,
                Checkpoint(
                    Position(stage=0, epoch=1, step=2),
                    "float",
                    1,
                    {"w": torch.zeros(1)},
                    progress={**progress_at_start(), "accuracy": {"top1": 1.0}},
                ),
            )
        digest = read_checkpoint(checkpoint).sha256
        for number, job in enumerate((prepared or self.prepared).jobs):
            (self.folder / f"{job.name}.yaml").write_text(dump_recipe(job.recipe))
            found = replace(measured(90.0 + number, digest), settings=job.settings.model_dump())
            (self.folder / f"{job.name}.measured").write_text(json.dumps(asdict(found)))

    def order(self, job: str, **orders: Any) -> None:
        (self.folder / f"{job}.json").write_text(json.dumps(orders))

    def forget_orders(self) -> None:
        for file in self.folder.glob("*-seed*.json"):
            file.unlink()

    def calls(self) -> list[dict[str, Any]]:
        file = self.folder / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def kinds(self) -> list[tuple[str, str]]:
        return sorted((call["job"], call["kind"]) for call in self.calls())


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    monkeypatch.setenv("STUB", str(tmp_path))
    # They take seconds, and test_page.py draws them.
    monkeypatch.setattr("saq_qat.analysis.study.run.write_pictures", lambda *_: [])
    return Stub(tmp_path)
