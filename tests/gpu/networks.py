"""The network of the training part: quantized by the product, and with its tensors exchangeable.

A network of one bit-width is traced, planned and compiled once. Each run has parameters, momenta and
BatchNorm statistics of its own, which take their place in that network while a step of the run is recorded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from saq_qat.data.batches import train_batches
from saq_qat.data.open import ImageData
from saq_qat.models.build import build_model
from saq_qat.optim.build import build_optimizer, trainable_parameters
from saq_qat.optim.passes import Objective
from saq_qat.optim.perturbation import Ball, ball_of
from saq_qat.quant.network import calibrate, quantize
from saq_qat.recipe.schema import Model, Quant, Saq, Sgd

__all__ = ["OPTIMIZER", "Network", "calibration_batches", "quantized", "starting_point"]

OPTIMIZER = Sgd(kind="sgd", momentum=0.9, nesterov=True, weight_decay=1e-4, clip_level_lr=0.1)
"""As in configs/cifar10: clip levels learn at a tenth of the rate, and do not decay."""

_TARGETS = ("onnxruntime",)
_CLASSES = 10
_IMAGE = (3, 32, 32)


def _quant(bits: int) -> Quant:
    return Quant.model_validate({"weight": {"bits": bits}, "activation": {"bits": bits}})


def quantized(bits: int, weights: Path | None, *, initialise: bool = True) -> fx.GraphModule:
    """ResNet-20 with ``bits`` for weights and activations where ONNX Runtime needs codes, uncalibrated.

    Args:
        weights: full-precision weights; random ones if None.
    """
    pretrained = None if weights is None else str(weights)
    torch.manual_seed(0)
    model = build_model(Model(name="resnet20_option_a", pretrained=pretrained), _CLASSES)
    network, _ = quantize(model, _quant(bits), _TARGETS, image=_IMAGE, initialise=initialise)
    return network


def calibration_batches(images: ImageData, seed: int, batch: int) -> list[Tensor]:
    """The batches of a run's first epoch on which the product places its activation quantizers."""
    batches = train_batches(images, batch_size=batch, seed=seed, epoch=0)
    return [pictures for pictures, _ in islice(batches, _quant(2).calibration_batches)]


def starting_point(bits: int, weights: Path | None, batches: Sequence[Tensor]) -> dict[str, Tensor]:
    """Parameters and buffers of a run at its first step, on the CPU: calibrated as the product does."""
    network = quantized(bits, weights)
    calibrate(network, batches)
    return network.state_dict()


@dataclass(frozen=True)
class _Group:
    """Parameters, by their place, that move alike."""

    places: tuple[int, ...]
    decay: float
    ratio: float


class Network:
    """A quantized network in which the tensors of any run of its bit-width can stand.

    Attributes:
        names: of the parameters that are trained; groups: how they move.
        objective: their loss and its gradients, compiled or not.
    """

    def __init__(self, bits: int, weights: Path | None, device: torch.device, *, compiled: bool) -> None:
        self.module = quantized(bits, weights).to(device).train()
        named = trainable_parameters(self.module)
        self.names = list(named)
        places = {id(parameter): place for place, parameter in enumerate(named.values())}
        self.groups = [
            _Group(tuple(places[id(p)] for p in group["params"]), group["weight_decay"], group["lr_ratio"])
            for group in build_optimizer(self.module, OPTIMIZER).param_groups
        ]
        self.objective = Objective(self.module, F.cross_entropy, compiled=compiled)
        self.ball: Ball = ball_of(self.module, Saq(kind="saq", rho=1.0))

    def hold(self, tensors: Mapping[str, Tensor]) -> None:
        """Let the network compute with these parameters and buffers, by name."""
        for name, tensor in tensors.items():
            path, _, own = name.rpartition(".")
            module = self.module.get_submodule(path)
            if isinstance(tensor, nn.Parameter):
                module._parameters[own] = tensor
            else:
                module._buffers[own] = tensor

    @torch.no_grad()
    def judge(
        self, tensors: Mapping[str, Tensor], batches: Sequence[tuple[Tensor, Tensor]]
    ) -> tuple[float, float]:
        """Top-1 in percent and mean cross entropy in evaluation mode, not compiled, as the product judges."""
        self.hold(tensors)
        self.module.eval()
        count = sum(len(labels) for _, labels in batches)
        sums = torch.zeros(2, dtype=torch.float64, device=batches[0][1].device)
        for images, labels in batches:
            logits = self.module(images)
            loss = F.cross_entropy(logits, labels, reduction="sum")
            sums += torch.stack([(logits.argmax(1) == labels).sum().double(), loss.double()])
        self.module.train()
        right, total = sums.tolist()
        return 100.0 * right / count, total / count
