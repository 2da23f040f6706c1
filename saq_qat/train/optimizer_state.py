"""Tensors of an optimizer and a training step by parameter name, as they lie in a checkpoint."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from saq_qat.errors import ArtifactError
from saq_qat.optim.update import SKIPPED, TrainingStep

__all__ = ["load_training_state", "training_state"]

_OPTIMIZER, _METHOD = "optimizer/", "method/"
_COUNT, _SQUARES = "step", "exp_avg_sq"


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
    *,
    steps: int,
    where: str,
) -> None:
    """Take ``training_state`` up; moments lie as their parameter does, AdamW's counts stay on the CPU.

    Args:
        tensors: of the checkpoint; others than those of optimizer and method are left alone.
        steps: that the stage has made, skipped ones included.
        where: the checkpoint, for messages.

    Raises:
        ArtifactError: they are not what so many steps leave: one is missing, unknown, of another shape or
            type, or out of range.
    """
    states = _named(tensors, _OPTIMIZER)
    method = _named(tensors, _METHOD)
    wrong = (
        _wrong_method(step, parameters, method, steps)
        or _wrong_states(_expected(optimizer, parameters), states, skipped=int(method[SKIPPED]) == steps)
        or _wrong_moments(states, steps)
    )
    if wrong:
        raise _other_state(where, wrong)
    for key, tensor in states.items():
        what, _, name = key.partition("/")
        parameter = parameters[name]
        optimizer.state[parameter][what] = (
            tensor.clone() if what == _COUNT else torch.empty_like(parameter.detach()).copy_(tensor)
        )
    step.load_state_dict(method)
    left = step.state_dict().keys() ^ method.keys()
    if left:
        raise _other_state(where, f"{_METHOD}{min(left)} is not what this method keeps")


def _named(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def _other_state(where: str, wrong: str) -> ArtifactError:
    return ArtifactError(
        f"{where}: optimizer.safetensors is not of this training: {wrong}. Its hash is right, so it was "
        "edited, or another program wrote it. Put back what training wrote, or start a new run."
    )


def _expected(optimizer: Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """By its key, a tensor of the shape and type of each that the optimizer keeps after a step."""
    if isinstance(optimizer, AdamW):
        kept: tuple[str, ...] = (_COUNT, "exp_avg", _SQUARES)
    else:
        kept = ("momentum_buffer",) if any(group["momentum"] for group in optimizer.param_groups) else ()
    count = torch.zeros(())
    return {
        f"{what}/{name}": count if what == _COUNT else parameter.detach()
        for what in kept
        for name, parameter in parameters.items()
    }


def _wrong_states(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], *, skipped: bool) -> str:
    """What is wrong with the optimizer's tensors, or nothing; steps that were all skipped leave none."""
    if skipped and not found:
        return ""
    unfit = [key for key in expected if key not in found] or [key for key in found if key not in expected]
    if unfit:
        return f"{_OPTIMIZER}{unfit[0]} is {'missing' if unfit[0] in expected else 'unknown'}"
    return next(
        (
            f"{_OPTIMIZER}{key} is {found[key].dtype} {list(found[key].shape)}, and must be {own.dtype} "
            f"{list(own.shape)}"
            for key, own in expected.items()
            if (found[key].shape, found[key].dtype) != (own.shape, own.dtype)
        ),
        "",
    )


def _wrong_moments(found: Mapping[str, Tensor], steps: int) -> str:
    """AdamW counts its steps, and the mean of squares is no negative number."""
    for key, tensor in found.items():
        what = key.partition("/")[0]
        if what == _COUNT and not (0 <= float(tensor) <= steps and float(tensor).is_integer()):
            return f"{_OPTIMIZER}{key} is {float(tensor):g}, and must be a count of at most {steps} steps"
        if what == _SQUARES and bool((tensor < 0).any()):
            return f"{_OPTIMIZER}{key} is a mean of squares, and has negative numbers"
    return ""


def _wrong_method(
    step: TrainingStep, parameters: Mapping[str, nn.Parameter], found: Mapping[str, Tensor], steps: int
) -> str:
    for key in step.state_dict():
        if key not in found:
            return f"{_METHOD}{key} is missing"
        value = found[key]
        if value.dtype != torch.int64 or value.ndim or not 0 <= int(value) <= steps:
            return f"{_METHOD}{key} must be a count of at most {steps} steps"
    for key, tensor in found.items():
        parameter = parameters.get(key.partition("/")[2])
        if parameter is not None and (tensor.shape, tensor.dtype) != (parameter.shape, parameter.dtype):
            return f"{_METHOD}{key} is {tensor.dtype} {list(tensor.shape)}, unlike its parameter"
    return ""
