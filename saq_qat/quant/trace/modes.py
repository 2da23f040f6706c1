"""What does something else in training than in evaluation."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from torch import nn
from torch.utils import _pytree

__all__ = ["Arguments", "FollowsMode", "Input", "depends_on_mode", "functions_told_the_mode"]

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def depends_on_mode(module: nn.Module) -> bool:
    """Whether ``forward`` of a module without children reads ``training``."""
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    return code is not None and "training" in code.co_names and next(module.children(), None) is None


def functions_told_the_mode(model: nn.Module) -> frozenset[Callable[..., Any]]:
    """Functions with a parameter ``training``, none of torch's, that forwards of ``model`` may call."""
    forwards = {inspect.unwrap(type(module).forward) for module in model.modules()}
    files = [getattr(forward, "__globals__", {}) for forward in forwards]
    theirs = {
        value
        for names in files
        for value in names.values()
        if isinstance(value, FunctionType) and value.__module__.partition(".")[0] != "torch"
    }
    return frozenset(function for function in theirs if "training" in inspect.signature(function).parameters)


@dataclass(frozen=True)
class Input:
    """The place of an argument that a module is called with."""

    index: int


class FollowsMode(nn.Module):
    """Calls a function with one set of arguments in training and another in evaluation.

    Args:
        evaluation, training: positional and named arguments; an ``Input`` stands for one of ``forward``.
    """

    def __init__(self, function: Callable[..., Any], evaluation: Arguments, training: Arguments) -> None:
        super().__init__()
        self.function = function
        self.evaluation, self.in_training = evaluation, training

    def forward(self, *inputs: Any) -> Any:
        chosen = self.in_training if self.training else self.evaluation
        args, kwargs = _pytree.tree_map(
            lambda value: inputs[value.index] if isinstance(value, Input) else value, chosen
        )
        return self.function(*args, **kwargs)
