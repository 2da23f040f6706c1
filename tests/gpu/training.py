"""Part (a): ResNet-20 on CIFAR-10 from public weights, plain quantization-aware training against SAQ."""

import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from saq_qat.models.build import build_model
from saq_qat.recipe.schema import Model
from tests.gpu.fleet import Fleet, Pictures, Run
from tests.gpu.images import Split, as_image_data, held_out, random_splits, read_splits
from tests.gpu.networks import OPTIMIZER, Network, calibration_batches, starting_point
from tests.gpu.options import Options
from tests.gpu.results import machine, write_part
from tests.gpu.tables import training_table

__all__ = ["run_training_part"]

RATES = (0.005, 0.01, 0.02, 0.05)
RHOS = (0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
_FIRST_RHO = 0.8
_SEARCH_SEEDS = 2
_SEARCH_SHARE = 0.3
_HELD_OUT = 5000
_RUNS_A_FILE = 12
_RESERVE = 0.92
_MEASURED_STEPS = 16
_FEWEST_EPOCHS = 4
Starts = dict[tuple[int, int], dict[str, Tensor]]


@dataclass(frozen=True)
class _Sizes:
    """What a rehearsal makes smaller."""

    batch: int
    held_out: int
    clean: int
    workers: int
    rates: tuple[float, ...]
    rhos: tuple[float, ...]
    epochs: int | None
    """Fixed, where time does not decide."""


_FULL = _Sizes(128, _HELD_OUT, 10_000, 16, RATES, RHOS, None)
_TINY = _Sizes(8, 16, 16, 1, RATES[:2], RHOS[:2], 1)


class _Training:
    """What search and final runs share: images, networks, and how long a step takes."""

    def __init__(self, options: Options) -> None:
        self.options, self.began = options, time.monotonic()
        self.sizes = _TINY if options.rehearse else _FULL
        self.device = options.device
        self.notes: list[str] = []
        self.train, self.val = (
            read_splits(options.data, options.work, options.workers)
            if options.data
            else random_splits(64, 16)
        )
        self.say(
            f"{len(self.train.labels):,} training and {len(self.val.labels):,} validation images are there"
        )
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = options.tf32
        self._pool = (
            None
            if options.rehearse
            else ProcessPoolExecutor(options.workers, get_context("spawn"), _one_thread)
        )

    @property
    def left(self) -> float:
        """Seconds that may still be used."""
        return self.options.seconds * _RESERVE - (time.monotonic() - self.began)

    def say(self, line: str) -> None:
        print(f"[{time.monotonic() - self.began:6.1f} s] {line}", flush=True)

    def starts(self, train: Split, seeds: Sequence[int]) -> "_Starts":
        """Begin to calibrate every (bit-width, seed) beside what follows."""
        data = as_image_data(train, self.val)
        wanted = {}
        for seed in seeds:
            arrays = [batch.numpy() for batch in calibration_batches(data, seed, self.sizes.batch)]
            for bits in self.options.bits:
                job = (bits, self.options.weights, arrays)
                wanted[bits, seed] = (
                    _calibrated(*job) if self._pool is None else self._pool.submit(_calibrated, *job)
                )
        return _Starts(wanted)

    def networks(self) -> dict[int, Network]:
        return {bits: self._network(bits) for bits in self.options.bits}

    def _network(self, bits: int) -> Network:
        compiled = self.options.execution != "eager" and not self.options.rehearse
        return Network(bits, self.options.weights, self.device, compiled=compiled)

    def fleet(self, starts: Starts) -> Fleet:
        """Lanes that run compiled passes, or eager ones where those cannot be recorded."""
        fleet = Fleet(self.networks(), self.device, self.sizes.batch, record=self.device.type == "cuda")
        try:
            self._try(fleet, starts)
        except (
            Exception
        ):  # whatever a compiler or a recording may raise: it is noted, and eager passes are tried
            if self.options.execution != "auto" or not any(
                n.objective.compiled for n in fleet.networks.values()
            ):
                raise
            self.notes.append(traceback.format_exc())
            self.say("compiled passes failed; eager ones instead (the reason stands in the result)")
            eager = {
                bits: Network(bits, self.options.weights, self.device, compiled=False)
                for bits in self.options.bits
            }
            fleet = Fleet(eager, self.device, self.sizes.batch, record=self.device.type == "cuda")
            self._try(fleet, starts)
        return fleet

    def _try(self, fleet: Fleet, starts: Starts) -> None:
        for bits in self.options.bits:
            seed = next(seed for own, seed in starts if own == bits)
            fleet.lanes_of(
                [Run("plain", "plain", bits, seed, 0.01, 1), Run("saq", "saq", bits, seed, 0.01, 1)], starts
            )
            self.say(
                f"W{bits}A{bits}: steps are recorded, compiled: {fleet.networks[bits].objective.compiled}"
            )

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


class _Starts:
    """Starting points that are being made."""

    def __init__(self, wanted: dict[tuple[int, int], Any]) -> None:
        self._wanted = wanted

    def all(self) -> Starts:
        arrays = {
            key: made if isinstance(made, dict) else made.result() for key, made in self._wanted.items()
        }
        return {key: {name: torch.from_numpy(a) for name, a in own.items()} for key, own in arrays.items()}


def _one_thread() -> None:
    torch.set_num_threads(1)


def _calibrated(
    bits: int, weights: Path | None, batches: list[NDArray[np.float32]]
) -> dict[str, NDArray[Any]]:
    """Arrays, which come back from another process as they are."""
    found = starting_point(bits, weights, [torch.from_numpy(batch) for batch in batches])
    return {name: np.array(tensor.numpy()) for name, tensor in found.items()}


def run_training_part(options: Options) -> None:
    """Search and final runs, as the options ask; writes search.json and training.json with states beside it."""
    training = _Training(options)
    try:
        found: dict[str, dict[int, float]] = {"rates": dict(options.rates), "rhos": dict(options.rhos)}
        seeds = tuple(range(options.seeds))
        searched, rest = held_out(training.train, training.sizes.held_out)
        coming = training.starts(searched, seeds[:_SEARCH_SEEDS]) if "search" in options.modes else None
        final = training.starts(training.train, seeds) if "final" in options.modes else None
        fleet: Fleet | None = None
        if coming is not None:
            starts = coming.all()
            fleet = training.fleet(starts)
            pictures = _pictures(training, searched, rest)
            found = _search(training, fleet, pictures, starts, seeds[:_SEARCH_SEEDS])
        if final is not None:
            starts = final.all()
            fleet = training.fleet(starts) if fleet is None else fleet
            _final(training, fleet, _pictures(training, training.train, training.val), starts, found, seeds)
    finally:
        training.close()


def _pictures(training: _Training, train: Split, val: Split) -> Pictures:
    return Pictures(train, val, training.sizes.batch, training.device, clean=training.sizes.clean)


def _facts(training: _Training, fleet: Fleet, pictures: Pictures) -> dict[str, Any]:
    return {
        "machine": machine(training.device),
        "compiled": {bits: network.objective.compiled for bits, network in fleet.networks.items()},
        "tf32": training.options.tf32,
        "rehearsal": training.options.rehearse,
        "streams": fleet.streams,
        "batch": pictures.batch,
        "train_images": len(pictures.labels),
        "judged_images": sum(len(labels) for _, labels in pictures.val),
        "clean_train_images": sum(len(labels) for _, labels in pictures.clean),
        "optimizer": OPTIMIZER.model_dump(),
        "notes": training.notes,
        "seconds": time.monotonic() - training.began,
    }


def _search(
    training: _Training, fleet: Fleet, pictures: Pictures, starts: Starts, seeds: Sequence[int]
) -> dict[str, dict[int, float]]:
    """The best rate of plain training, then rho there, then SAQ at the rate's neighbours with the best rho."""
    bits, sizes = training.options.bits, training.sizes
    plain = [Run("plain", "plain", b, s, rate, 1) for b in bits for rate in sizes.rates for s in seeds]
    saq = [Run("saq", "saq", b, s, 0.01, 1, rho) for b in bits for rho in sizes.rhos for s in seeds]
    cost = _cost(training, fleet, pictures, starts, {"plain": plain, "saq": saq})
    beside = cost["saq"] * 2 / len(sizes.rhos)
    budget = training.left * (_SEARCH_SHARE if "final" in training.options.modes else 1.0)
    whole = (cost["plain"] + cost["saq"] + beside) * pictures.steps
    epochs = sizes.epochs or max(1, int(budget / whole))
    training.say(f"search: {epochs} epochs each; {whole:.1f} s an epoch of all its runs")
    results = fleet.train([replace(run, epochs=epochs) for run in plain], pictures, starts)
    rates = {b: _best(results, b, "rate") for b in bits}
    results += fleet.train(
        [replace(run, epochs=epochs, rate=rates[run.bits]) for run in saq], pictures, starts
    )
    rhos = {b: _best([r for r in results if r["run"].arm == "saq"], b, "rho") for b in bits}
    neighbours = [
        Run("saq", "saq", b, s, rate, epochs, rhos[b])
        for b in bits for rate in _neighbours(sizes.rates, rates[b]) for s in seeds
    ]  # fmt: skip
    results += fleet.train(neighbours, pictures, starts)
    of_saq = [r for r in results if r["run"].arm == "saq"]
    saq_rates = {b: _best([r for r in of_saq if r["run"].rho == rhos[b]], b, "rate") for b in bits}
    found = {"rates": rates, "rhos": rhos, "saq_rates": saq_rates}
    content = {
        **_facts(training, fleet, pictures),
        "cost": cost,
        "found": found,
        "runs": _without_states(results),
    }
    write_part(training.options.output, "search", content, complete=True)
    training.say(f"search found {found}")
    return found


def _neighbours(rates: Sequence[float], best: float) -> list[float]:
    place = rates.index(best)
    return [rates[other] for other in (place - 1, place + 1) if 0 <= other < len(rates)]


def _best(results: Iterable[dict[str, Any]], bits: int, key: str) -> float:
    """The value of ``key`` with the best mean top-1 over seeds; a run that is not finite counts as nothing."""
    by_value: dict[float, list[float]] = {}
    for result in results:
        if result["run"].bits == bits:
            finite = np.isfinite(result["val_loss"])
            by_value.setdefault(getattr(result["run"], key), []).append(result["val_top1"] if finite else 0.0)
    return max(by_value, key=lambda value: float(np.mean(by_value[value])))


def _cost(
    training: _Training, fleet: Fleet, pictures: Pictures, starts: Starts, waves: Mapping[str, Sequence[Run]]
) -> dict[str, float]:
    """Seconds that a step of each wave's runs takes side by side, on the best number of streams."""
    steps = 2 if training.options.rehearse else _MEASURED_STEPS
    first = next(iter(waves.values()))
    if fleet.record:
        by_streams = {}
        for streams in (1, 2, 4, 8):
            fleet.streams = streams
            by_streams[streams] = fleet.seconds_per_step(first, pictures, starts, steps)
        fleet.streams = min(by_streams, key=by_streams.__getitem__)
        training.notes.append(f"seconds a step of {len(first)} runs by number of streams: {by_streams}")
        training.say(training.notes[-1])
    cost = {name: fleet.seconds_per_step(runs, pictures, starts, steps) for name, runs in waves.items()}
    for name, runs in waves.items():
        training.say(f"{name}: {1e3 * cost[name] / len(runs):.2f} ms a step and run, {len(runs)} at a time")
    return cost


def _final(
    training: _Training,
    fleet: Fleet,
    pictures: Pictures,
    starts: Starts,
    found: Mapping[str, Mapping[int, float]],
    seeds: Sequence[int],
) -> None:
    """The arms at the best settings, over all seeds; states are written as they come."""
    baseline = _full_precision(training, pictures)
    training.say(f"full precision: {baseline}")
    arms, cost, count = _affordable(training, fleet, pictures, starts, found, seeds)
    epochs, waves = arms
    results: list[dict[str, Any]] = []
    content: dict[str, Any] = {}
    for name, runs in waves.items():
        expected = cost[name] * pictures.steps * runs[0].epochs
        if results and expected > training.left:
            training.notes.append(
                f"{name} was left out: {expected:.0f} s expected, {training.left:.0f} s left"
            )
            training.say(training.notes[-1])
            continue
        of_wave = fleet.train(runs, pictures, starts)
        _write_states(training.options.output, name, of_wave)
        results += _without_states(of_wave)
        content = {
            **_facts(training, fleet, pictures),
            "full_precision": baseline, "found": found, "cost": cost, "epochs": epochs, "seeds": count,
            "runs": results,
        }  # fmt: skip
        write_part(training.options.output, "training", content, complete=False)
        training.say(f"{name}: {len(of_wave)} runs of {runs[0].epochs} epochs are done")
    write_part(training.options.output, "training", content | {"notes": training.notes}, complete=True)
    print(training_table(results))


def _affordable(
    training: _Training,
    fleet: Fleet,
    pictures: Pictures,
    starts: Starts,
    found: Mapping[str, Mapping[int, float]],
    seeds: Sequence[int],
) -> tuple[tuple[int, dict[str, list[Run]]], dict[str, float], int]:
    """Epochs and waves that fit the time, their cost, and how many seeds; half of them where epochs are too few."""
    while True:
        waves = _waves(training.options, found, seeds, epochs=1)
        cost = _cost(training, fleet, pictures, starts, waves)
        doubled = {name: 2 if name == "plain2x" else 1 for name in waves}
        whole = sum(cost[name] * doubled[name] for name in waves) * pictures.steps
        judging = 0.4 * sum(map(len, waves.values()))
        epochs = training.sizes.epochs or int((training.left - judging) / whole)
        training.say(f"final: {len(seeds)} seeds, {whole:.1f} s an epoch of all runs, {epochs} epochs")
        if epochs >= _FEWEST_EPOCHS or len(seeds) <= 4 or training.sizes.epochs:
            epochs = max(1, epochs)
            return (epochs, _waves(training.options, found, seeds, epochs=epochs)), cost, len(seeds)
        seeds = seeds[: len(seeds) // 2]


def _waves(
    options: Options, found: Mapping[str, Mapping[int, float]], seeds: Sequence[int], *, epochs: int
) -> dict[str, list[Run]]:
    """Runs that are trained side by side: those of equally many epochs; the comparison that matters first."""
    rates, rhos = found["rates"], found["rhos"]
    saq_rates = found.get("saq_rates", rates)
    pairs = [(bits, seed) for bits in options.bits for seed in seeds]
    of_arm = {
        "plain": [Run("plain", "plain", b, s, rates[b], epochs) for b, s in pairs],
        "saq": [Run("saq", "saq", b, s, saq_rates[b], epochs, rhos[b]) for b, s in pairs],
        "plain2x": [Run("plain2x", "plain", b, s, rates[b], 2 * epochs) for b, s in pairs],
        "saq_sum": [Run("saq_sum", "saq", b, s, saq_rates[b] / 2, epochs, rhos[b], 1.0) for b, s in pairs],
        "sam": [Run("sam", "sam", b, s, rates[b], epochs, 0.05) for b, s in pairs],
    }
    waves = {"pair": of_arm["plain"] + of_arm["saq"]}
    return waves | {arm: of_arm[arm] for arm in options.arms if arm not in ("plain", "saq")}


def _full_precision(training: _Training, pictures: Pictures) -> dict[str, float]:
    weights = training.options.weights
    pretrained = None if weights is None else str(weights)
    network = (
        build_model(Model(name="resnet20_option_a", pretrained=pretrained), 10).to(training.device).eval()
    )
    right = count = 0
    with torch.no_grad():
        for images, labels in pictures.val:
            right += int((network(images).argmax(1) == labels).sum())
            count += len(labels)
    return {"val_top1": 100.0 * right / count}


def _without_states(results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in result.items() if key != "state"} for result in results]


def _write_states(folder: Path, wave: str, results: Sequence[dict[str, Any]]) -> None:
    """Final tensors of a few runs a file, under ``<arm>-w<bits>-s<seed>/<name>``."""
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(results), _RUNS_A_FILE):
        tensors = {}
        for result in results[first : first + _RUNS_A_FILE]:
            run = result["run"]
            prefix = f"{run.arm}-w{run.bits}-s{run.seed}"
            tensors |= {f"{prefix}/{name}": tensor for name, tensor in result["state"].items()}
        save_file(tensors, folder / f"states-{wave}-{first // _RUNS_A_FILE}.safetensors")
