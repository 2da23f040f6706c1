"""One of two processes of tests/train/test_distributed.py, started by torchrun; writes what it ends with."""

import sys
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saq_qat.optim.build import build_optimizer, build_step, set_learning_rate
from saq_qat.optim.distillation import Distillation
from saq_qat.optim.passes import Objective
from saq_qat.quant.network import calibrate, quantize
from saq_qat.quant.numerics.kinds.table import activation_grid, weight_grid
from saq_qat.quant.numerics.layers import QuantConv2d, QuantLinear
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.recipe.load import parse_recipe
from saq_qat.recipe.schema import (
    ActivationQuantizer,
    AdamW,
    EfficientTraining,
    Plain,
    Quant,
    Sam,
    Saq,
    Sgd,
    WeightQuantizer,
)
from saq_qat.train.distributed import Processes, joined_processes
from saq_qat.train.run import run_training
from tests.quant.networks import Attention

__all__ = ["METHODS", "STATISTICS", "TRAININGS", "train"]

Method = Plain | Sam | Saq
METHODS: dict[str, Method] = {
    "plain": Plain(kind="plain"),
    "sam": Sam(kind="sam", rho=0.05),
    "saq": Saq(kind="saq", rho=0.3),
    "pql": Saq(kind="saq", rho=0.3, objective="pql"),
    "wide": Saq(kind="saq", rho=0.3, perturb=("weight", "bias", "clip_level")),
    "efficient": Saq(kind="saq", rho=0.3, efficient=EfficientTraining(tau=3)),
    "taught": Saq(kind="saq", rho=0.3, efficient=EfficientTraining(tau=3)),
    "transformer": Saq(kind="saq", rho=0.1, efficient=EfficientTraining(tau=3)),
    "transformer, case 1": Saq(kind="saq", rho=0.1, case=1, perturb=("weight", "bias", "norm")),
}
STEPS, BATCH = 5, 16
# Of two micro-batches in each process; of one, which is a whole share, for the method that keeps the most.
TRAININGS = [*((name, 4) for name in METHODS), ("efficient", 8)]
STATISTICS = """
version: 1
name: statistics
model: {name: "tests.train.small_network:SmallNetwork", arguments: {dropout: 0.0}}  # which ranks draw apart
data: {kind: digits, image_size: 8, train_limit: 48, val_limit: 20}
train:
  batch_size: 16
  optimizer: {kind: sgd}
  ema: {decay: 0.6}
  mixing: {mixup: 0.4, cutmix: 1.0}
  stages:
    - {kind: float, epochs: 1, lr: 0.01}
    - {kind: statistics, batches: 4}
"""


def _convolutions() -> nn.Module:
    return nn.Sequential(
        QuantConv2d(nn.Conv2d(3, 5, 3), Quantizer(weight_grid("saq", 3), bits=3), normalize=True),
        nn.ReLU(),
        Quantizer(activation_grid("saq", 4, signed=False), bits=4),
        nn.Flatten(),
        QuantLinear(nn.Linear(80, 4), Quantizer(weight_grid("saq", 3), bits=3)),
    )


def _transformer() -> nn.Module:
    quant = Quant(
        weight=WeightQuantizer(kind="lsq", bits=4, initialise="least_squares"),
        activation=ActivationQuantizer(kind="lsq", bits=4, offset="bounded", initialise="least_squares"),
    )
    network, _ = quantize(Attention(), quant, ("onnxruntime",))
    calibrate(network, [torch.randn(BATCH, 3, 8, 8)])
    return network


def train(
    name: str, processes: Processes, micro_batch_size: int, precision: Literal["float32"] = "float32"
) -> dict[str, Tensor]:
    """Parameters and method state after a few steps of a network without BatchNorm, in float64.

    Transformers have LSQ+ quantizers and AdamW, and learn from a teacher.
    """
    torch.manual_seed(0)
    is_transformer = name.startswith("transformer")
    network = (_transformer() if is_transformer else _convolutions()).double().train()
    optimizer = build_optimizer(network, AdamW(kind="adamw") if is_transformer else Sgd(kind="sgd"))
    set_learning_rate(optimizer, 0.002 if is_transformer else 0.05)
    side, classes = (8, 5) if is_transformer else (6, 4)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(3 * side**2, classes)).double().requires_grad_(False)
    distillation = Distillation(teacher) if is_transformer or name == "taught" else None
    processes.align(network)
    objective = Objective(network, F.cross_entropy, precision, micro_batch_size, distillation)
    strategy = build_step(objective, optimizer, METHODS[name])
    generator = torch.Generator().manual_seed(1)
    share = BATCH // processes.world_size
    own = slice(processes.rank * share, (processes.rank + 1) * share)
    for _ in range(STEPS):
        images = torch.randn(BATCH, 3, side, side, generator=generator, dtype=torch.float64)
        labels = torch.randint(4, (BATCH,), generator=generator)
        strategy.step(images[own], labels[own])
    return {**{n: p.detach() for n, p in network.named_parameters()}, **strategy.state_dict()}


def _main(folder: Path) -> None:
    with joined_processes() as processes:
        assert processes.same_text(f"from {processes.rank}") == "from 0"
        assert processes.largest(processes.rank) == 1 and processes.total([2.0]) == [4.0]
        run_training(parse_recipe(STATISTICS, "statistics"), folder / "statistics")
        for name, size in TRAININGS:
            tensors = train(name, processes, size)
            safetensors.torch.save_file(tensors, folder / f"{name}-{size}-{processes.rank}.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    _main(Path(sys.argv[1]))
