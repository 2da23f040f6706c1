"""Many runs at a time on one GPU: recorded steps of all of them, replayed in turns on several streams."""

import time
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from saq_qat.data.transforms import network_input
from saq_qat.optim.build import learning_rate
from tests.gpu.images import PREPROCESSING, Epoch, Split
from tests.gpu.lanes import Lane, Method
from tests.gpu.networks import Network

__all__ = ["Fleet", "Outcome", "Pictures", "Run", "Starts"]

_STREAMS = 8
_CHUNK = 8
_CHUNKS_AHEAD = 2
_JUDGED_AT_ONCE = 1000
Starts = Mapping[tuple[int, int], Mapping[str, Tensor]]
"""Parameters and buffers of a run's first step, by (bit-width, seed)."""

_Block = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Run:
    """One training: ``arm`` is its name in the tables.

    Attributes:
        rate: peak learning rate, from which a cosine falls to 0. share: of g_s + g, 1/2 for ``mean``.
    """

    arm: str
    method: Method
    bits: int
    seed: int
    rate: float
    epochs: int
    rho: float = 0.0
    share: float = 0.5

    @property
    def name(self) -> str:
        """By which its final state is known."""
        return f"{self.arm}-w{self.bits}-s{self.seed}"


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        train_losses: mean of each epoch. val_*: on the judged images. clean_*: on training images without
            augmentation, in evaluation mode. Top-1 in percent.
        wave_seconds: of all runs that were trained beside it, ``wave_runs``.
        state: parameters and buffers.
    """

    run: Run
    train_losses: list[float]
    val_top1: float
    val_loss: float
    clean_top1: float
    clean_loss: float
    wave_seconds: float
    wave_runs: int
    state: dict[str, Tensor] = field(repr=False)

    def measured(self) -> dict[str, Any]:
        """All but the state."""
        return {name: value for name, value in vars(self).items() if name not in ("state", "run")} | {
            "run": asdict(self.run)
        }


class Pictures:
    """Images on the device.

    Attributes:
        squares, labels: to train on. val: batches to judge on.
        clean: batches of about ``clean`` training images, evenly spaced, as they are.
    """

    def __init__(self, train: Split, val: Split, batch: int, device: torch.device, *, clean: int) -> None:
        self.batch = batch
        self.squares, self.labels = _there(train, device)
        self.val = _batches(*_there(val, device))
        every = max(1, len(train.labels) // clean)
        self.clean = _batches(self.squares[::every], self.labels[::every])

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return len(self.labels) // self.batch

    def epoch(self, seed: int, number: int) -> Epoch:
        return Epoch(self.squares, self.labels, self.batch, seed, number)


def _there(split: Split, device: torch.device) -> _Block:
    return torch.from_numpy(split.pixels).to(device), torch.from_numpy(split.labels).to(device)


def _batches(squares: Tensor, labels: Tensor) -> list[_Block]:
    ends = range(0, len(labels), _JUDGED_AT_ONCE)
    parts = ((squares[end : end + _JUDGED_AT_ONCE], labels[end : end + _JUDGED_AT_ONCE]) for end in ends)
    return [(network_input(pixels, PREPROCESSING), own) for pixels, own in parts]


class Fleet:
    """Lanes of every bit-width and method, made when they are needed and used again by later runs.

    Attributes:
        networks: by bit-width.
        record: let a GPU replay steps; else they are computed one after the other.
        streams: on which they are replayed side by side, at most 8.
    """

    def __init__(
        self, networks: Mapping[int, Network], device: torch.device, batch: int, *, record: bool
    ) -> None:
        self.networks, self.record, self.streams = networks, record, 4
        self._device, self._batch = device, batch
        self._lanes: dict[tuple[int, Method], list[Lane]] = defaultdict(list)
        self._places: dict[int, int] = {}
        self._pool = [torch.cuda.Stream(device) for _ in range(_STREAMS)] if record else []  # type: ignore[no-untyped-call]  # torch's

    def lanes_of(self, runs: Sequence[Run], starts: Starts) -> list[Lane]:
        """A lane for each run, standing at its start."""
        taken: dict[tuple[int, Method], int] = defaultdict(int)
        found = []
        for run in runs:
            own, place = self._lanes[run.bits, run.method], taken[run.bits, run.method]
            taken[run.bits, run.method] += 1
            if place == len(own):
                own.append(self._new_lane(run, starts[run.bits, run.seed]))
            found.append(own[place])
        for run, lane in zip(runs, found, strict=True):
            lane.begin(starts[run.bits, run.seed], rho=run.rho, share=run.share)
        self._wait()
        return found

    def _new_lane(self, run: Run, start: Mapping[str, Tensor]) -> Lane:
        lane = Lane(self.networks[run.bits], start, run.method, self._batch, self._device)
        if self.record:
            # Those of one stream never run at once, so that they may share a library's scratch memory.
            place = len(self._places) % _STREAMS
            lane.record(self._pool[place])
            self._places[id(lane)] = place
        return lane

    def _wait(self) -> None:
        if self.record:
            torch.cuda.synchronize(self._device)

    def train(self, runs: Sequence[Run], pictures: Pictures, starts: Starts) -> list[Outcome]:
        """Train runs of equally many epochs side by side; what each came to, in their order."""
        epochs = runs[0].epochs
        lanes = self.lanes_of(runs, starts)
        rates = [self._rates(run, epochs * pictures.steps) for run in runs]
        losses: list[list[float]] = [[] for _ in runs]
        began = time.monotonic()
        for number in range(epochs):
            here = [of_run[number * pictures.steps :] for of_run in rates]
            self._epoch(runs, lanes, pictures, number, here, pictures.steps)
            for own, lane in zip(losses, lanes, strict=True):
                own.append(float(lane.loss_sum) / pictures.steps)
                lane.loss_sum.zero_()
            self._wait()
        seconds = time.monotonic() - began
        return [
            self._outcome(run, lane, own, pictures, seconds, len(runs))
            for run, lane, own in zip(runs, lanes, losses, strict=True)
        ]

    def _rates(self, run: Run, steps: int) -> Tensor:
        rates = [learning_rate(step, peak=run.rate, steps=steps, warmup=0) for step in range(steps)]
        return torch.tensor(rates, device=self._device)

    def _epoch(
        self,
        runs: Sequence[Run],
        lanes: Sequence[Lane],
        pictures: Pictures,
        number: int,
        rates: Sequence[Tensor],
        steps: int,
    ) -> None:
        """The first ``steps`` of an epoch; the host is never more than a few chunks ahead of the device."""
        made = {run.seed: pictures.epoch(run.seed, number) for run in runs}
        ahead: deque[list[torch.cuda.Event]] = deque()
        for first in range(0, steps, _CHUNK):
            count = min(_CHUNK, steps - first)
            blocks = {seed: epoch.batches(first, count) for seed, epoch in made.items()}
            chunk = [(lane, blocks[run.seed]) for run, lane in zip(runs, lanes, strict=True)]
            ahead.append(self._chunk(chunk, [of_run[first:] for of_run in rates], count))
            while len(ahead) > _CHUNKS_AHEAD:
                for event in ahead.popleft():
                    event.synchronize()
        self._wait()

    def _chunk(
        self, lanes: Sequence[tuple[Lane, _Block]], rates: Sequence[Tensor], count: int
    ) -> list[torch.cuda.Event]:
        """``count`` steps of every lane on its block (count, B, ...); events that end with them."""
        streams = [self._stream(lane) for lane, _ in lanes]
        used = {stream for stream in streams if stream is not None}
        for stream in used:
            stream.wait_stream(torch.cuda.current_stream(self._device))
            for tensor in {id(t): t for _, block in lanes for t in block}.values():
                tensor.record_stream(stream)
        for step in range(count):
            for (lane, (images, labels)), of_run, own in zip(lanes, rates, streams, strict=True):
                with nullcontext() if own is None else torch.cuda.stream(own):
                    lane.step(images[step], labels[step], of_run[step])
        return [stream.record_event() for stream in used]

    def _stream(self, lane: Lane) -> torch.cuda.Stream | None:
        return self._pool[self._places[id(lane)] % self.streams] if self.record else None

    def seconds_per_step(self, runs: Sequence[Run], pictures: Pictures, starts: Starts, steps: int) -> float:
        """Of one step of all these runs side by side; where they stood is lost."""
        lanes = self.lanes_of(runs, starts)
        steps = min(steps, pictures.steps)
        rates = [torch.zeros(steps, device=self._device) for _ in runs]
        self._epoch(runs, lanes, pictures, 0, rates, 1)
        began = time.monotonic()
        self._epoch(runs, lanes, pictures, 0, rates, steps)
        return (time.monotonic() - began) / steps

    def _outcome(
        self, run: Run, lane: Lane, losses: list[float], pictures: Pictures, seconds: float, beside: int
    ) -> Outcome:
        judge = self.networks[run.bits].judge
        val, clean = (judge(lane.tensors, batches) for batches in (pictures.val, pictures.clean))
        return Outcome(run, losses, *val, *clean, seconds, beside, lane.state())
