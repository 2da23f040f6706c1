"""Many runs at a time on one GPU: recorded steps of all of them, replayed in turns on several streams."""

import time
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from saq_qat.optim.build import learning_rate
from tests.gpu.images import PREPROCESSING, Epoch, Split
from tests.gpu.lanes import Lane, Method
from tests.gpu.networks import Network
from saq_qat.data.transforms import network_input

__all__ = ["Fleet", "Pictures", "Run"]

_STREAMS = 8
_CHUNK = 8
_CHUNKS_AHEAD = 2
_JUDGED_AT_ONCE = 1000


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


class Pictures:
    """Training and judged images that lie on the device.

    Attributes:
        val: batches to judge on. clean: batches of training images without augmentation.
    """

    def __init__(self, train: Split, val: Split, batch: int, device: torch.device, *, clean: int) -> None:
        self.batch = batch
        self.squares, self.labels = self._there(train, device)
        self.val = self._batches(*self._there(val, device))
        self.clean = self._batches(
            self.squares[:: max(1, len(train.labels) // clean)],
            self.labels[:: max(1, len(train.labels) // clean)],
        )

    @staticmethod
    def _there(split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(split.pixels).to(device), torch.from_numpy(split.labels).to(device)

    @staticmethod
    def _batches(squares: Tensor, labels: Tensor) -> list[tuple[Tensor, Tensor]]:
        parts = zip(squares.split(_JUDGED_AT_ONCE), labels.split(_JUDGED_AT_ONCE), strict=True)
        return [(network_input(pixels, PREPROCESSING), own) for pixels, own in parts]

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return len(self.labels) // self.batch


@dataclass
class Fleet:
    """Lanes of every bit-width and method, made when they are needed and used again by later runs.

    Attributes:
        networks: by bit-width. batch: images of a step.
        streams: on which graphs are replayed side by side.
    """

    networks: Mapping[int, Network]
    device: torch.device
    batch: int
    record: bool
    streams: int = 4
    _lanes: dict[tuple[int, Method], list[Lane]] = field(default_factory=lambda: defaultdict(list))
    _recorded_on: list[Lane] = field(default_factory=list)
    _pool: list[torch.cuda.Stream] = field(default_factory=list)

    def lanes_of(
        self, runs: Sequence[Run], starts: Mapping[tuple[int, int], Mapping[str, Tensor]]
    ) -> list[Lane]:
        """A lane for each run, standing at its start."""
        taken: dict[tuple[int, Method], int] = defaultdict(int)
        found = []
        for run in runs:
            own = self._lanes[run.bits, run.method]
            place = taken[run.bits, run.method]
            taken[run.bits, run.method] += 1
            start = starts[run.bits, run.seed]
            if place == len(own):
                own.append(self._new_lane(run, start))
            found.append(own[place])
        for run, lane in zip(runs, found, strict=True):
            lane.begin(starts[run.bits, run.seed], rho=run.rho, share=run.share)
        self.wait()
        return found

    def _new_lane(self, run: Run, start: Mapping[str, Tensor]) -> Lane:
        lane = Lane(self.networks[run.bits], start, run.method, self.batch, self.device)
        if self.record:
            if not self._pool:
                self._pool = [torch.cuda.Stream(self.device) for _ in range(_STREAMS)]
            # lanes of one stream never run at the same time, so that they may share a library's scratch memory
            lane.record(self._pool[len(self._recorded_on) % _STREAMS])
            self._recorded_on.append(lane)
        return lane

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def train(
        self, runs: Sequence[Run], pictures: Pictures, starts: Mapping[tuple[int, int], Mapping[str, Tensor]]
    ) -> list[dict[str, object]]:
        """Train runs of equally many epochs side by side; what each came to, in their order.

        Every result has the loss of each epoch, what was judged at the end, and its final tensors (``state``).
        """
        epochs = runs[0].epochs
        lanes = self.lanes_of(runs, starts)
        total = epochs * pictures.steps
        rates = [
            torch.tensor(
                [learning_rate(t, peak=run.rate, steps=total, warmup=0) for t in range(total)],
                device=self.device,
            )
            for run in runs
        ]
        losses: list[list[float]] = [[] for _ in runs]
        began = time.monotonic()
        for epoch in range(epochs):
            made = {
                run.seed: Epoch(pictures.squares, pictures.labels, pictures.batch, run.seed, epoch)
                for run in runs
            }
            self._epoch(
                runs, lanes, made, [of_run[epoch * pictures.steps :] for of_run in rates], pictures.steps
            )
            for own, lane in zip(losses, lanes, strict=True):
                own.append(float(lane.loss_sum) / pictures.steps)
                lane.loss_sum.zero_()
            self.wait()
        seconds = time.monotonic() - began
        return [
            self._outcome(run, lane, own, pictures) | {"seconds_of_wave": seconds, "runs_of_wave": len(runs)}
            for run, lane, own in zip(runs, lanes, losses, strict=True)
        ]

    def _epoch(
        self,
        runs: Sequence[Run],
        lanes: Sequence[Lane],
        made: Mapping[int, Epoch],
        rates: Sequence[Tensor],
        steps: int,
    ) -> None:
        ahead: deque[list[torch.cuda.Event]] = deque()
        for first in range(0, steps, _CHUNK):
            count = min(_CHUNK, steps - first)
            blocks = {seed: epoch.batches(first, count) for seed, epoch in made.items()}
            ahead.append(self._chunk(runs, lanes, blocks, [of_run[first:] for of_run in rates], count))
            while len(ahead) > _CHUNKS_AHEAD:
                for event in ahead.popleft():
                    event.synchronize()
        self.wait()

    def _chunk(
        self,
        runs: Sequence[Run],
        lanes: Sequence[Lane],
        blocks: Mapping[int, tuple[Tensor, Tensor]],
        rates: Sequence[Tensor],
        count: int,
    ) -> list[torch.cuda.Event]:
        """``count`` steps of every lane; events that end with them."""
        used = self._streams_of(lanes)
        for stream in set(used) - {None}:
            stream.wait_stream(torch.cuda.current_stream(self.device))
            for block in blocks.values():
                for tensor in block:
                    tensor.record_stream(stream)
        for step in range(count):
            for run, lane, of_run, stream in zip(runs, lanes, rates, used, strict=True):
                images, labels = blocks[run.seed]
                with nullcontext() if stream is None else torch.cuda.stream(stream):
                    lane.step(images[step], labels[step], of_run[step])
        return [stream.record_event() for stream in set(used) if stream is not None]

    def _streams_of(self, lanes: Sequence[Lane]) -> list[torch.cuda.Stream | None]:
        if not self.record:
            return [None] * len(lanes)
        places = {id(lane): place % _STREAMS for place, lane in enumerate(self._recorded_on)}
        return [self._pool[places[id(lane)] % self.streams] for lane in lanes]

    def seconds_per_step(
        self,
        runs: Sequence[Run],
        pictures: Pictures,
        starts: Mapping[tuple[int, int], Mapping[str, Tensor]],
        steps: int,
    ) -> float:
        """Of one step of all these runs side by side; where they stood is lost."""
        lanes = self.lanes_of(runs, starts)
        made = {
            run.seed: Epoch(pictures.squares, pictures.labels, pictures.batch, run.seed, 0) for run in runs
        }
        rates = [torch.zeros(steps, device=self.device) for _ in runs]
        steps = min(steps, pictures.steps)
        self._epoch(runs, lanes, made, rates, min(2, steps))
        began = time.monotonic()
        self._epoch(runs, lanes, made, rates, steps)
        return (time.monotonic() - began) / steps

    def _outcome(self, run: Run, lane: Lane, losses: list[float], pictures: Pictures) -> dict[str, object]:
        network = self.networks[run.bits]
        val, clean = (network.judge(lane.tensors, batches) for batches in (pictures.val, pictures.clean))
        return {
            "run": run,
            "train_losses": losses,
            "val_top1": val["top1"],
            "val_loss": val["loss"],
            "clean_train_top1": clean["top1"],
            "clean_train_loss": clean["loss"],
            "state": lane.state(),
        }
