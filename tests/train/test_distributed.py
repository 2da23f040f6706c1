"""Two gloo processes under torchrun against one process on the same global batch."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file

from saq_qat.errors import RecipeError
from saq_qat.recipe.load import parse_recipe
from saq_qat.train.distributed import Processes, joined_processes
from saq_qat.train.run import run_training

WORKER = Path(__file__).with_name("distributed_worker.py")
NAMES = ("plain", "sam", "saq", "pql", "wide", "efficient", "taught", "transformer", "transformer, case 1")
TRAININGS = [*((name, 4) for name in NAMES), ("efficient", 8)]
ONE = Processes(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def worker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("distributed_worker", WORKER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def torchrun(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *launcher, str(script), *arguments], env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    ended = torchrun(WORKER, str(folder))
    assert ended.returncode == 0, ended.stderr
    written = {f"{name}-{size}-{rank}.safetensors" for name, size in TRAININGS for rank in (0, 1)}
    assert {path.name for path in folder.glob("*.safetensors")} == written
    return folder


@pytest.mark.parametrize(("name", "size"), TRAININGS)
def test_two_processes_train_as_one_whose_micro_batches_are_their_shares(
    together: Path, worker: ModuleType, name: str, size: int
) -> None:
    alone = worker.train(name, ONE, size)
    found = load_file(together / f"{name}-{size}-0.safetensors")
    assert found.keys() == alone.keys()
    for key, value in alone.items():
        torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-12, msg=key)


@pytest.mark.parametrize(("name", "size"), TRAININGS)
def test_replicas_stay_identical_bit_for_bit(together: Path, name: str, size: int) -> None:
    first, second = (load_file(together / f"{name}-{size}-{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_statistics_of_two_processes_are_means_over_the_shares_of_both(
    together: Path, worker: ModuleType, tmp_path: Path
) -> None:
    run_training(parse_recipe(worker.STATISTICS, "statistics", ["train.micro_batch_size=8"]), tmp_path)
    alone, both = (
        load_file(run / "checkpoints" / "last" / "model.safetensors")
        for run in (tmp_path, together / "statistics")
    )
    for key in alone:
        if not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(both[key], alone[key], rtol=1e-3, atol=1e-4, msg=key)


def test_shares_that_do_not_divide_are_refused() -> None:
    two = Processes(0, 2, torch.device("cpu"))
    assert two.share_of(32, 8) == 16
    with pytest.raises(RecipeError, match="multiple of the number of processes; got 33 and 2"):
        two.share_of(33, None)
    with pytest.raises(RecipeError, match="got 12"):
        two.share_of(32, 12)


def test_one_process_needs_no_process_group() -> None:
    with joined_processes() as processes:
        assert (processes.rank, processes.world_size) == (0, 1)
        assert not torch.distributed.is_initialized()
