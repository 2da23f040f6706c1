"""A whole recipe, killed at random moments until it is done, against the same recipe left alone.

`python -m tests.faults.training.soak FOLDER --kills 30 --seed 0`: all stages, a teacher, efficient training,
averages and checkpoints every three steps. Exits 1 if anything was lost.
"""

import argparse
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from saq_qat.recipe.load import parse_recipe
from saq_qat.recipe.schema import Recipe
from saq_qat.train.checkpoint import read_checkpoint
from saq_qat.train.log import read_log
from saq_qat.train.run import run_training

__all__ = ["Soak", "cpu_seconds"]

_TEACHER = """
version: 1
name: teacher
model: {name: "tests.train.small_network:SmallNetwork"}
data: {kind: synthetic, image_size: 8, train_size: 64, val_size: 16}
train:
  batch_size: 16
  optimizer: {kind: sgd}
  stages: [{kind: float, epochs: 2, lr: 0.05}]
"""
_RECIPE = """
version: 1
name: soak
seed: 5
model: {name: "tests.train.small_network:SmallNetwork"}
data: {kind: synthetic, image_size: 8, train_size: 64, val_size: 16, augmentation: crop_flip}
quant: {weight: {bits: 4}, activation: {bits: 4}, calibration_batches: 1}
train:
  batch_size: 16
  micro_batch_size: 8
  optimizer: {kind: adamw}
  checkpoint_steps: 3
  mixing: {mixup: 0.4, cutmix: 1.0}
  ema: {decay: 0.6}
  teacher: {run: TEACHER}
  stages:
    - {kind: float, epochs: 1, lr: 0.01, method: {kind: sam, rho: 0.05}}
    - {kind: statistics, batches: 2}
    - {kind: quantized, epochs: 2, lr: 0.005, method: {kind: saq, rho: 0.3, efficient: {tau: 3}}}
    - {kind: statistics, batches: 4}
    - {kind: deploy, epochs: 1, lr: 0.001, method: {kind: saq, rho: 0.1}}
"""
_FILES = [
    Path("checkpoints", which, name)
    for which in ("last", "best")
    for name in ("model.safetensors", "optimizer.safetensors")
]
_NOT_REPEATED = frozenset(
    {"images_per_second", "seconds", "step_seconds", "waited", "step_cosine", "cosine_of_steps"}
)
"""Of lines of a log: speed, and the angle to a gradient that no checkpoint holds."""


@dataclass
class Soak:
    """Kills of one seed.

    Attributes:
        killed_at: the step of the checkpoint that each kill left; -1 if there was none yet.
        lost: what differs from the run that was left alone, in words.
    """

    folder: Path
    seed: int
    killed_at: list[int] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    finished: int = 0

    def run(self, kills: int) -> None:
        """Kill ``kills`` times, over as many runs as that takes; each that comes to its end is compared."""
        moments = random.Random(self.seed)
        teacher, whole = self.folder / "teacher", self.folder / "whole"
        _in_child(lambda: run_training(parse_recipe(_TEACHER, "teacher"), teacher))
        seconds = _in_child(lambda: run_training(self.recipe, whole))
        print(f"the recipe left alone: {seconds:.1f} s of CPU time", flush=True)
        while len(self.killed_at) < kills or not self.finished:
            self._one_run(self.folder / f"run-{self.finished}", whole, kills, seconds, moments)

    @property
    def recipe(self) -> Recipe:
        return parse_recipe(_RECIPE.replace("TEACHER", str(self.folder / "teacher")), "soak")

    def _one_run(self, run: Path, whole: Path, kills: int, seconds: float, moments: random.Random) -> None:
        while len(self.killed_at) < kills:
            delay = moments.uniform(0, seconds * 0.4)
            begun = self.folder / "begun"
            begun.unlink(missing_ok=True)
            # Every fifth kill falls while the training is still being taken up, the others behind a step.
            at = None if len(self.killed_at) % 5 == 4 else begun

            def trained(run: Path = run, begun: Path = begun) -> None:
                run_training(self.recipe, run, resume=True, on_progress=lambda _: begun.touch())

            if not _killed(trained, delay, at):
                break
            last = run / "checkpoints" / "last"
            self.killed_at.append(read_checkpoint(last).position.step if last.is_dir() else -1)
            print(f"kill {len(self.killed_at)} after {delay:.2f} s: step {self.killed_at[-1]}", flush=True)
        _in_child(lambda: run_training(self.recipe, run, resume=True))
        self.finished += 1
        self.lost += _differences(run, whole)


def _differences(run: Path, whole: Path) -> list[str]:
    found = [str(run / name) for name in _FILES if (run / name).read_bytes() != (whole / name).read_bytes()]
    logs = [
        [{k: v for k, v in line.items() if k not in _NOT_REPEATED} for line in read_log(each / "log.jsonl")]
        for each in (run, whole)
    ]
    # A run that is taken up after its end says so once more.
    return found + ([] if logs[0][: len(logs[1])] == logs[1] else [str(run / "log.jsonl")])


def _forked(work: Callable[[], object]) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except BaseException as error:  # of the child, which must not run on into its parent's code
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def _in_child(work: Callable[[], object]) -> float:
    """CPU seconds of ``work`` in a process of its own: torch cannot be forked once it has trained."""
    _, status, used = os.wait4(_forked(work), 0)
    if status:
        raise SystemExit(f"a training failed with status {status}")
    return used.ru_utime + used.ru_stime


def cpu_seconds(process: int) -> float:
    """How much a process has computed; by the clock, a busy machine would never let it get anywhere."""
    behind_name = Path("/proc", str(process), "stat").read_text().rpartition(")")[2].split()
    return (int(behind_name[11]) + int(behind_name[12])) / os.sysconf("SC_CLK_TCK")


def _killed(work: Callable[[], object], delay: float, begun: Path | None) -> bool:
    """Whether ``work`` was killed after ``delay`` seconds of its CPU time, rather than done before.

    Args:
        begun: a file from whose existence on they count; from the start if None.
    """
    child = _forked(work)
    end = delay if begun is None else None
    while end is None or cpu_seconds(child) < end:
        if end is None and begun is not None and begun.exists():
            end = cpu_seconds(child) + delay
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if status:
                raise SystemExit(f"a training failed with status {status}")
            return False
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    soak = Soak(options.folder, options.seed)
    soak.run(options.kills)
    steps = ", ".join(map(str, soak.killed_at))
    print(f"{len(soak.killed_at)} kills at steps {steps}; {soak.finished} runs came to their end")
    print(f"lost: {'; '.join(soak.lost) or 'nothing'}")
    sys.exit(bool(soak.lost))


if __name__ == "__main__":
    _main()
