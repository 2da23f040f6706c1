"""Whether a stage's passes are compiled, and how its tensors lie in memory."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from saq_qat.errors import SetupError
from saq_qat.optim.compilation import missing_compiler
from saq_qat.recipe.schema import DescentStage, Plain, Saq, Train

__all__ = ["Execution", "choose_execution"]

_ENOUGH_WORK = 5e13
_ENOUGH_STEPS = 5000
_BACKWARD = 3
"""A pass with its gradients computes three products where the forward pass computes one."""


@dataclass(frozen=True)
class Execution:
    """How the passes of a stage are computed.

    Attributes:
        reason: why they are compiled, or are not, as a line of the log says it.
    """

    compiled: bool
    memory_format: torch.memory_format
    reason: str

    def described(self) -> dict[str, object]:
        """As a line of log.jsonl."""
        layout = "channels_last" if self.memory_format == torch.channels_last else "contiguous"
        return {"compiled": self.compiled, "reason": self.reason, "memory_format": layout}


def choose_execution(
    train: Train, stage: DescentStage, network: nn.Module, image: torch.Size, steps: int
) -> Execution:
    """What ``train.compile`` and ``train.memory_format`` mean for one stage.

    A function of the recipe, the network and the kind of device alone, so that a resumed training decides as
    before. Compiling takes a minute or two, which a stage earns on a CPU with ``5e13`` floating-point
    operations (some minutes on two cores), and anywhere with 5,000 steps.

    Args:
        image: (C, H, W). steps: of the stage.

    Raises:
        SetupError: ``train.precision`` is bfloat16, and the CPU has no instructions for it.
    """
    _require_fast(train, next(network.parameters()).device)
    compiled, reason = _compiles(train, stage, network, image, steps)
    channels_last = train.memory_format == "channels_last" or (train.memory_format == "auto" and compiled)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return Execution(compiled, layout, reason)


def _require_fast(train: Train, device: torch.device) -> None:
    if train.precision == "float32" or device.type != "cpu":
        return
    found = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if found.get("architecture") == "x86_64" and not found.get("avx512_bf16"):
        raise SetupError(
            "train.precision: bfloat16 needs a GPU, or a CPU with AVX-512 BF16; this one would compute it "
            "many times slower than float32. Train with train.precision=float32."
        )


def _compiles(
    train: Train, stage: DescentStage, network: nn.Module, image: torch.Size, steps: int
) -> tuple[bool, str]:
    device = next(network.parameters()).device
    missing = missing_compiler(device)
    if train.compile == "off":
        return False, "train.compile is off"
    if missing is not None:
        return False, f"this machine has not {missing}"
    if train.compile == "on":
        return True, "train.compile is on"
    if steps >= _ENOUGH_STEPS:
        return True, f"{steps} steps earn the warm-up"
    if device.type != "cpu":
        return False, f"{steps} steps are too few to earn the warm-up (from {_ENOUGH_STEPS})"
    work = steps * train.batch_size * _passes(stage) * _BACKWARD * _forward_operations(network, image)
    earned = work >= _ENOUGH_WORK
    verb = "earn" if earned else "are too few to earn"
    return earned, f"about {work:.1e} floating-point operations {verb} the warm-up (from {_ENOUGH_WORK:.0e})"


def _passes(stage: DescentStage) -> float:
    """Of a step, on average."""
    method = stage.method
    if isinstance(method, Plain) or (isinstance(method, Saq) and method.objective == "vql"):
        return 1.0
    efficient = method.efficient if isinstance(method, Saq) else None
    return 2.0 if efficient is None else 1.0 + 1.0 / efficient.tau


@torch.no_grad()
def _forward_operations(network: nn.Module, image: torch.Size) -> int:
    """Of convolutions and matrix products on one image."""
    parameter = next(network.parameters())
    training = network.training
    network.eval()
    try:
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, *image, dtype=parameter.dtype, device=parameter.device))
    finally:
        network.train(training)
    return int(counter.get_total_flops())
