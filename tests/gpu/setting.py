"""What search and final runs share: images, networks, where runs start, and how long all of it may take."""

import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tests.gpu.fleet import Fleet, Pictures, Run, Starts
from tests.gpu.images import Split, as_image_data, random_splits, read_splits
from tests.gpu.networks import OPTIMIZER, Network, calibration_batches, starting_point
from tests.gpu.options import Options
from tests.gpu.results import machine

__all__ = ["Setting", "Sizes"]

_RESERVE = 0.92
_MEASURED_STEPS = 16
_STREAMS = (1, 2, 4, 8)
_Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Sizes:
    """What a rehearsal makes smaller.

    Attributes:
        batch: images of a step. held_out, clean: images to search on, and to take the final training loss of.
        epochs: fixed, where time does not decide.
    """

    batch: int = 128
    held_out: int = 5000
    clean: int = 10_000
    rates: tuple[float, ...] = (0.005, 0.01, 0.02, 0.05)
    rhos: tuple[float, ...] = (0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
    epochs: int | None = None
    measured_steps: int = _MEASURED_STEPS


_TINY = Sizes(8, 16, 16, (0.005, 0.01), (0.4, 1.6), 1, 1)


class Setting:
    """The surroundings of the training part; close it at the end."""

    def __init__(self, options: Options) -> None:
        self.options, self.began = options, time.monotonic()
        self.sizes = _TINY if options.rehearse else Sizes()
        self.device = options.device
        self.notes: list[str] = []
        tiny = random_splits(32, 16)
        self.train, self.val = (
            read_splits(options.data, options.work, options.workers) if options.data else tiny
        )
        self.say(f"{len(self.train.labels):,} training and {len(self.val.labels):,} validation images")
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = options.tf32
        self._pool = None if options.rehearse else ProcessPoolExecutor(options.workers, get_context("spawn"))

    @property
    def left(self) -> float:
        """Seconds that may still be used."""
        return self.options.seconds * _RESERVE - (time.monotonic() - self.began)

    def say(self, line: str) -> None:
        print(f"[{time.monotonic() - self.began:6.1f} s] {line}", flush=True)

    def note(self, line: str) -> None:
        """Say it, and keep it for the results."""
        self.notes.append(line)
        self.say(line)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def pictures(self, train: Split, val: Split) -> Pictures:
        return Pictures(train, val, self.sizes.batch, self.device, clean=self.sizes.clean)

    def begin_starts(self, train: Split, seeds: Sequence[int]) -> "ComingStarts":
        """Calibrate every (bit-width, seed) in other processes, beside what follows."""
        data = as_image_data(train, self.val)
        coming: dict[tuple[int, int], Future[_Arrays]] = {}
        for seed in seeds:
            batches = [batch.numpy() for batch in calibration_batches(data, seed, self.sizes.batch)]
            for bits in self.options.bits:
                coming[bits, seed] = self._calibrate(bits, batches)
        return ComingStarts(coming)

    def _calibrate(self, bits: int, batches: list[NDArray[np.float32]]) -> Future[_Arrays]:
        if self._pool is not None:
            return self._pool.submit(_calibrated, bits, self.options.weights, batches)
        done: Future[_Arrays] = Future()
        done.set_result(_calibrated(bits, self.options.weights, batches))
        return done

    def fleet(self) -> Fleet:
        """Lanes of compiled passes, or of eager ones where those cannot be compiled or recorded."""
        execution = self.options.execution
        if execution == "eager" or self.options.rehearse:
            return self._fleet(compiled=False)
        try:
            return self._fleet(compiled=True)
        except Exception:  # a compiler or a recording may fail in any way: the results say how
            if execution == "compiled":
                raise
            self.note(f"compiled passes failed, eager ones take their place:\n{traceback.format_exc()}")
            return self._fleet(compiled=False)

    def _fleet(self, *, compiled: bool) -> Fleet:
        networks = {
            bits: Network(bits, self.options.weights, self.device, compiled=compiled)
            for bits in self.options.bits
        }
        fleet = Fleet(networks, self.device, self.sizes.batch, record=self.device.type == "cuda")
        for bits, network in networks.items():
            uncalibrated = {name: tensor.clone() for name, tensor in network.module.state_dict().items()}
            pair = [Run("plain", "plain", bits, 0, 0.0, 1), Run("saq", "saq", bits, 0, 0.0, 1)]
            fleet.lanes_of(pair, {(bits, 0): uncalibrated})
            self.say(f"W{bits}A{bits}: a step is ready, compiled: {network.objective.compiled}")
        return fleet

    def cost(
        self, fleet: Fleet, pictures: Pictures, starts: Starts, waves: Mapping[str, Sequence[Run]]
    ) -> dict[str, float]:
        """Seconds that a step of each wave's runs takes side by side, on the best number of streams."""
        steps = self.sizes.measured_steps
        first = next(iter(waves.values()))
        if fleet.record:
            by_streams = {}
            for streams in _STREAMS:
                fleet.streams = streams
                by_streams[streams] = fleet.seconds_per_step(first, pictures, starts, steps)
            fleet.streams = min(by_streams, key=by_streams.__getitem__)
            self.note(f"seconds a step of {len(first)} runs, by number of streams: {by_streams}")
        cost = {name: fleet.seconds_per_step(runs, pictures, starts, steps) for name, runs in waves.items()}
        for name, runs in waves.items():
            self.say(f"{name}: {1e3 * cost[name] / len(runs):.2f} ms a step and run, {len(runs)} at a time")
        return cost

    def facts(self, fleet: Fleet, pictures: Pictures) -> dict[str, Any]:
        """What every result says of how it came about."""
        return {
            "machine": machine(self.device),
            "rehearsal": self.options.rehearse,
            "compiled": {bits: network.objective.compiled for bits, network in fleet.networks.items()},
            "tf32": self.options.tf32,
            "streams": fleet.streams,
            "batch": pictures.batch,
            "train_images": len(pictures.labels),
            "judged_images": sum(len(labels) for _, labels in pictures.val),
            "clean_train_images": sum(len(labels) for _, labels in pictures.clean),
            "optimizer": OPTIMIZER.model_dump(),
            "seconds": time.monotonic() - self.began,
            "notes": self.notes,
        }


@dataclass(frozen=True)
class ComingStarts:
    """Starting points that are being made."""

    coming: Mapping[tuple[int, int], Future[_Arrays]]

    def all(self) -> Starts:
        """Parameters and buffers by (bit-width, seed)."""
        return {
            key: {name: torch.from_numpy(array) for name, array in made.result().items()}
            for key, made in self.coming.items()
        }


def _calibrated(bits: int, weights: Path | None, batches: list[NDArray[np.float32]]) -> _Arrays:
    """Arrays, which come back from another process as they are; one thread, as others do the same beside."""
    torch.set_num_threads(1)
    found = starting_point(bits, weights, [torch.from_numpy(batch) for batch in batches])
    return {name: np.array(tensor.numpy()) for name, tensor in found.items()}
