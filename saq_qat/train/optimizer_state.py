"""Tensors of an optimizer and a training step by parameter name, as they lie in a checkpoint."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from saq_qat.optim.update import TrainingStep

__all__ = ["load_training_state", "training_state"]

_OPTIMIZER, _METHOD = "optimizer/", "method/"


def training_state(
    optimizer: Optimizer, step: TrainingStep, parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """``optimizer/<what>/<parameter>`` and ``method/<what>``; learning rates are functions of the step."""
    tensors = {_METHOD + name: tensor for name, tensor in step.state_dict().items()}
    for name, parameter in parameters.items():
        for what, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{_OPTIMIZER}{what}/{name}"] = value
    return tensors


def load_training_state(
    optimizer: Optimizer,
    step: TrainingStep,
    parameters: Mapping[str, nn.Parameter],
    tensors: Mapping[str, Tensor],
) -> None:
    """Take ``training_state`` up; moments lie as their parameter does, AdamW's counts stay on the CPU."""
    for key, tensor in tensors.items():
        if key.startswith(_OPTIMIZER):
            what, _, name = key.removeprefix(_OPTIMIZER).partition("/")
            parameter = parameters[name]
            counts = what == "step"
            optimizer.state[parameter][what] = (
                tensor.clone() if counts else torch.empty_like(parameter.detach()).copy_(tensor)
            )
    own = {key.removeprefix(_METHOD): tensor for key, tensor in tensors.items() if key.startswith(_METHOD)}
    step.load_state_dict(own)
