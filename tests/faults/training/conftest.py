"""Runs that were stopped in the middle, made once."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from saq_qat.train.run import run_training
from saq_qat.train.stop import TrainingStoppedError
from tests.faults.training.recipes import STAGES, faulty_recipe
from tests.train.stopping import sigterm_at

QUANTIZED = (
    f"train.stages={STAGES}",
    "quant={weight: {bits: 4}, activation: {bits: 4}}",
    "train.ema={decay: 0.6}",
)


@pytest.fixture(autouse=True)
def _signals_are_heard() -> Iterator[None]:
    """As on a terminal, also where the tests themselves were started with nohup, which ignores SIGHUP, or in
    the background by a shell's script, which ignores SIGINT."""
    hang_up = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGHUP, hang_up)
    signal.signal(signal.SIGINT, interrupt)


def _stopped(folder: Path, step: int, *overrides: str) -> Path:
    with pytest.raises(TrainingStoppedError):
        run_training(faulty_recipe(*overrides), folder, on_progress=sigterm_at(step))
    return folder


@pytest.fixture(scope="session")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stopped behind the 6th of 8 steps, with ``last.previous`` at the 4th."""
    return _stopped(tmp_path_factory.mktemp("faults") / "stopped", 6)


@pytest.fixture(scope="session")
def stopped_quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stopped within an epoch of efficient training whose weights are averaged."""
    return _stopped(tmp_path_factory.mktemp("faults") / "quantized", 7, *QUANTIZED)
