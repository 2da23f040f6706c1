"""From the recipe to an optimizer, its learning rate, and the strategy of a stage."""

import math
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from saq_qat.optim.passes import Objective
from saq_qat.optim.perturbation import ball_of
from saq_qat.optim.plain import PlainStep
from saq_qat.optim.sam import SamStep
from saq_qat.optim.saq import SaqStep
from saq_qat.optim.update import TrainingStep, Update
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.recipe import schema

__all__ = ["build_optimizer", "build_step", "learning_rate", "set_learning_rate", "trainable_parameters"]

_RATIO = "lr_ratio"


def trainable_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """Every parameter that is trained, by name."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def build_optimizer(network: nn.Module, recipe: schema.Optimizer) -> Optimizer:
    """SGD or AdamW over groups: weights of layers, clip levels, those of kinds that let them decay, and all
    other parameters.

    The others are added to something or scale single channels: biases, norms, class tokens, tables of
    positions. Clip levels, steps and offsets have a learning rate relative to the others' and a decay of
    their own. The learning rate is 0 until ``set_learning_rate``.
    """
    quantizers = [module for module in network.modules() if isinstance(module, Quantizer)]
    levels = {id(p) for module in quantizers for p in module.parameters()}
    decaying = {id(module.alpha) for module in quantizers if module.kind.decays}
    named = trainable_parameters(network)
    weights = [p for name, p in named.items() if _is_weight(name, p)]
    clip_levels = [p for p in named.values() if id(p) in levels]
    known = {id(p) for p in (*weights, *clip_levels)}
    others = [p for p in named.values() if id(p) not in known]
    decay_of_others = recipe.weight_decay if recipe.decay == "all" else 0.0
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": recipe.weight_decay, _RATIO: 1.0},
        {"params": others, "weight_decay": decay_of_others, _RATIO: 1.0},
        *(
            {
                "params": [p for p in clip_levels if (id(p) in decaying) == decays],
                "weight_decay": _decay_of_levels(recipe, decays=decays),
                _RATIO: recipe.clip_level_lr,
            }
            for decays in (False, True)
        ),
    ]
    groups = [group for group in groups if group["params"]]
    if isinstance(recipe, schema.Sgd):
        return SGD(groups, lr=0.0, momentum=recipe.momentum, nesterov=recipe.nesterov, foreach=True)
    return AdamW(groups, lr=0.0, betas=recipe.betas, foreach=True)


def _decay_of_levels(recipe: schema.Optimizer, *, decays: bool) -> float:
    """As the recipe says, or else as the kind does: that of weights, or none."""
    if recipe.clip_level_decay is not None:
        return recipe.clip_level_decay
    return recipe.weight_decay if decays else 0.0


def _is_weight(name: str, parameter: nn.Parameter) -> bool:
    """Whether a layer multiplies by it: a ``weight`` of two axes or more, not a norm's or a class token."""
    return parameter.ndim > 1 and "weight" in name.rpartition(".")[2]


def learning_rate(step: int, *, peak: float, steps: int, warmup: int) -> float:
    """Rate of 0-based ``step``: linear from 0 to ``peak`` over ``warmup`` steps, then a cosine to 0.

    A function of the step alone, so that it needs no state.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Give each group ``rate`` times its own ratio."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group[_RATIO]


def build_step(
    objective: Objective,
    optimizer: Optimizer,
    method: schema.Plain | schema.Sam | schema.Saq,
    *,
    max_norm: float | None = None,
) -> TrainingStep:
    """The strategy of ``method`` for the network of ``objective``.

    Raises:
        RecipeError: SAQ on a network that has nothing in its ball.
    """
    network = objective.network
    named: Mapping[str, nn.Parameter] = trainable_parameters(network)
    parameters = list(named.values())
    steps = [m for m in network.modules() if isinstance(m, Quantizer) and m.kind.learns_step]
    update = Update(optimizer, parameters, max_norm=max_norm, names=list(named), quantizers=steps)
    if isinstance(method, schema.Saq):
        return SaqStep(objective, named, update, ball_of(network, method), method)
    if isinstance(method, schema.Sam):
        return SamStep(objective, parameters, update, rho=method.rho)
    return PlainStep(objective, parameters, update)
