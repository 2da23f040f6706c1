"""The exponential moving average of the weights, which is judged and shipped in their place."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from saq_qat.quant.numerics.statistics import tracking_norms

__all__ = ["WeightAverage", "behind_average", "weights_behind"]

_BEHIND = "weights/"


class WeightAverage:
    """A copy of a network whose weights follow it: average <- decay * average + (1 - decay) * weight.

    Averaged are the parameters that are trained, clip levels, steps and offsets among them, and BatchNorm's
    running statistics; every other buffer is that of the network.

    In the first steps the decay is (1 + n) / (10 + n), n being the steps of the stage before, so that the
    network the stage began with is soon forgotten (tf.train.ExponentialMovingAverage). torch's AveragedModel
    decides by a counter on the device, for which every step would wait.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network)
        self._decay = decay
        self._averages, self._buffers = _state(self.network)
        self._weights, self._originals = _state(network)

    def decay_after(self, steps: int) -> float:
        """Share of the average that stays after the step behind ``steps`` others."""
        return min(self._decay, (1 + steps) / (10 + steps))

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Follow the network, which has just made the step behind ``steps`` others of its stage."""
        torch._foreach_lerp_(self._averages, self._weights, 1.0 - self.decay_after(steps))
        for buffer, original in zip(self._buffers, self._originals, strict=True):
            buffer.copy_(original)


def behind_average(network: nn.Module) -> dict[str, Tensor]:
    """The weights that an average follows, as they lie in a checkpoint beside the optimizer's state."""
    return {_BEHIND + name: tensor for name, tensor in network.state_dict().items()}


def weights_behind(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those weights back by their own names; none in a checkpoint without an average."""
    return {name.removeprefix(_BEHIND): t for name, t in tensors.items() if name.startswith(_BEHIND)}


def _state(network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """What is averaged, and the buffers that are not; each in the same order for equal networks."""
    statistics = [
        statistic
        for norm in tracking_norms(network)
        for statistic in (norm.running_mean, norm.running_var)
        if statistic is not None
    ]
    known = {id(statistic) for statistic in statistics}
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [*trained, *statistics], [buffer for buffer in network.buffers() if id(buffer) not in known]
