"""One run as a step that a GPU repeats by itself: its tensors, the arithmetic of a step, and its recording.

The step is the product's, made of the product's functions, without what waits for the device or draws from a
random generator: whether numbers are finite is asked once an epoch.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from saq_qat.optim.passes import MicroBatch, Snapshot, running_statistics, statistics_put_back
from saq_qat.optim.perturbation import find_epsilon, moved, opened, perturbed, scaled
from tests.gpu.networks import OPTIMIZER, Network

__all__ = ["Lane", "Method"]

Method = Literal["plain", "saq", "sam"]

_WARM_UP = 3


class Lane:
    """One run at a time of one method and bit-width, in memory that stays where it is.

    Attributes:
        tensors: parameters and buffers by name.
        rate, rho: of the next step. share: what g_s + g is multiplied by, 1/2 for the objective ``mean``.
        loss_sum: of the steps since it was last set to zero.
    """

    def __init__(
        self, network: Network, start: Mapping[str, Tensor], method: Method, batch: int, device: torch.device
    ) -> None:
        self.network, self.method = network, method
        self.tensors: dict[str, Tensor] = {
            name: nn.Parameter(tensor.to(device, copy=True))
            if name in network.names
            else tensor.to(device, copy=True)
            for name, tensor in start.items()
        }
        self.parameters = [self.tensors[name] for name in network.names]
        self.momenta = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.rate, self.rho, self.share, self.loss_sum = (torch.zeros((), device=device) for _ in range(4))
        self.images = torch.zeros(batch, 3, 32, 32, device=device)
        self.labels = torch.zeros(batch, dtype=torch.int64, device=device)
        network.hold(self.tensors)
        self._statistics = Snapshot(running_statistics(network.module))
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream: torch.cuda.Stream | None = None

    @torch.no_grad()
    def begin(self, start: Mapping[str, Tensor], *, rho: float = 0.0, share: float = 0.5) -> None:
        """Stand at the start of a run."""
        for name, tensor in self.tensors.items():
            tensor.copy_(start[name])
        torch._foreach_zero_(self.momenta)
        self.loss_sum.zero_()
        self.rho.fill_(rho)
        self.share.fill_(share)

    def state(self) -> dict[str, Tensor]:
        """Parameters and buffers, on the CPU."""
        return {name: tensor.detach().cpu() for name, tensor in self.tensors.items()}

    def record(self, stream: torch.cuda.Stream) -> None:
        """Record the step on a stream; ``step`` then replays it. The run must begin anew afterwards."""
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                self.compute()
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self.compute()
        self._graph, self._stream = graph, stream

    def step(self, images: Tensor, labels: Tensor, rate: Tensor) -> None:
        """One step of training on the current stream: images (B, 3, 32, 32), labels (B,), rate 0-dim."""
        self.images.copy_(images)
        self.labels.copy_(labels)
        self.rate.copy_(rate)
        if self._graph is None:
            self.compute()
        else:
            self._graph.replay()

    def compute(self) -> None:
        """The step on what lies in ``images``, ``labels``, ``rate`` and ``rho``."""
        self.network.hold(self.tensors)
        loss, gradients = self._sam() if self.method == "sam" else self._in_ball()
        self._descend(gradients)
        self.loss_sum.add_(loss)

    def _in_ball(self) -> tuple[Tensor, list[Tensor]]:
        """Loss and update of plain training and of SAQ (``SaqStep``); both have slots, so that both are one
        program for a compiler."""
        network, part = self.network, MicroBatch(self.images, self.labels, None)
        with opened(network.ball) as slots:
            loss, found = network.objective.gradients(part, [*self.parameters, *slots])
            count = len(self.parameters)
            g, of_slots = found[:count], found[count:]
            if self.method == "plain":
                return loss, g
            epsilon = find_epsilon(network.ball, of_slots, [], self.rho)
            with perturbed(network.ball, epsilon), statistics_put_back(self._statistics):
                _, g_s = network.objective.gradients(part, self.parameters)
        torch._foreach_add_(g_s, g)
        torch._foreach_mul_(g_s, self.share)
        return loss, g_s

    def _sam(self) -> tuple[Tensor, list[Tensor]]:
        """Loss and update of SAM around the full-precision parameters (``SamStep``)."""
        network, part = self.network, MicroBatch(self.images, self.labels, None)
        parameters = [p for p in self.parameters if isinstance(p, nn.Parameter)]
        with opened(network.ball):
            loss, g = network.objective.gradients(part, parameters)
            epsilon, _, _ = scaled(g, self.rho)
            with moved(parameters, epsilon), statistics_put_back(self._statistics):
                _, g_s = network.objective.gradients(part, parameters)
        return loss, g_s

    @torch.no_grad()
    def _descend(self, gradients: Sequence[Tensor]) -> None:
        """SGD with Nesterov momentum, as torch.optim.SGD computes it, with a rate that lies on the device."""
        for group in self.network.groups:
            weights, momenta, g = (
                [tensors[place] for place in group.places]
                for tensors in (self.parameters, self.momenta, gradients)
            )
            if group.decay:
                g = list(torch._foreach_add(g, weights, alpha=group.decay))
            torch._foreach_mul_(momenta, OPTIMIZER.momentum)
            torch._foreach_add_(momenta, g)
            ahead = list(torch._foreach_add(g, momenta, alpha=OPTIMIZER.momentum))
            torch._foreach_mul_(ahead, self.rate * -group.ratio)
            torch._foreach_add_(weights, ahead)
