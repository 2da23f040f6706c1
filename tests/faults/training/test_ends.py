"""Ends that no step expects: the second signal, and memory that runs out."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import torch
from pytest import MonkeyPatch
from torch import Tensor

from saq_qat.errors import SaqError
from saq_qat.train.run import run_training
from saq_qat.train.stop import stop_on_signals
from tests.faults.training.recipes import faulty_recipe
from tests.train.small_network import SmallNetwork

LAST = Path("checkpoints", "last", "model.safetensors")


def stopped_twice(first: signal.Signals, second: signal.Signals) -> None:
    with stop_on_signals() as stop:
        os.kill(os.getpid(), first)
        if stop.number != first:
            os._exit(1)
        os.kill(os.getpid(), second)
        os._exit(2)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGTERM, signal.SIGINT),
        (signal.SIGHUP, signal.SIGTERM),
    ],
)
def test_a_second_signal_ends_a_training_at_once(first: signal.Signals, second: signal.Signals) -> None:
    child = multiprocessing.get_context("fork").Process(target=stopped_twice, args=(first, second))
    child.start()
    child.join()
    assert child.exitcode == -second


def test_memory_that_runs_out_in_a_step_leaves_a_checkpoint_and_says_what_to_lower(
    tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    recipe = faulty_recipe("train.checkpoint_steps=1")
    forward, calls = SmallNetwork.forward, []

    def forward_until_full(network: SmallNetwork, x: Tensor) -> Tensor:
        calls.append(x)
        if network.training and len(calls) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return forward(network, x)

    with monkeypatch.context() as patched:
        patched.setattr(SmallNetwork, "forward", forward_until_full)
        with pytest.raises(SaqError, match=r"ran out of memory.*Lower train\.micro_batch_size") as stopped:
            run_training(recipe, tmp_path / "run")
    assert stopped.value.exit_code == 1
    run_training(recipe, tmp_path / "run", resume=True)
    run_training(recipe, tmp_path / "whole")
    assert (tmp_path / "run" / LAST).read_bytes() == (tmp_path / "whole" / LAST).read_bytes()
