"""Sharpness-aware quantization: the two-pass step and efficient training (paper Eq. 15 and Algorithm 1)."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from saq_qat.errors import ArtifactError
from saq_qat.optim.exchange import distributed, share_gradients
from saq_qat.optim.gradients import GradientSum, along_vertical, cosine, flat_norm, vertical_component
from saq_qat.optim.passes import (
    Objective,
    Snapshot,
    random_state,
    running_statistics,
    same_randomness,
    statistics_put_back,
    undone_unless_kept,
)
from saq_qat.optim.perturbation import Ball, find_epsilon, opened, perturbed
from saq_qat.optim.update import StepResult, Update
from saq_qat.recipe.schema import Saq

__all__ = ["Pass", "SaqDescent", "SaqStep"]

_VERTICAL = "g_v/"


class Pass(Protocol):
    """A forward and a backward pass over one micro-batch, whoever makes them."""

    def __call__(self, inputs: Sequence[Tensor], *, in_float32: bool = False) -> tuple[Tensor, list[Tensor]]:
        """The loss, 0-dim and detached, and its gradients; as ``Objective.gradients``."""
        ...


class SaqDescent:
    """One SAQ step: g at Q(w), epsilon from it, g_s at Q(w) + epsilon on the same batch, an update with both.

    With efficient training, g_s is computed at steps 0, tau, 2 tau, ... and its direction vertical to g is
    reused between.

    Several processes share gradients, never epsilons. Without efficient training only the second pass
    exchanges them, and since g_s is then added to g where it stands, one exchange carries both: ||g|| and
    the cosine stay unknown. With it, both passes exchange, so that g_v is the same everywhere.

    Args:
        precision: of the passes; in ``bfloat16`` epsilon goes through a product of its own.
    """

    def __init__(
        self,
        network: nn.Module,
        precision: Literal["float32", "bfloat16"],
        parameters: Mapping[str, nn.Parameter],
        update: Update,
        ball: Ball,
        method: Saq,
    ) -> None:
        self._precision = precision
        self._names = list(parameters)
        self._parameters = list(parameters.values())
        self._update = update
        self._ball = ball
        places = {id(parameter): index for index, parameter in enumerate(self._parameters)}
        self._further = [places[id(parameter)] for parameter in ball.parameters]
        self._method = method
        self._apart = method.efficient is not None or not distributed()
        self._buffers = Snapshot(list(network.buffers()))
        self._statistics = Snapshot(running_statistics(network))
        self._t = 0
        self._g_v: list[Tensor] | None = None

    def step(self, passes: Callable[[], Sequence[Pass]]) -> StepResult:
        """Train on a batch, whose micro-batches ``passes`` gives, one pass for each.

        Raises:
            DivergedError: too many steps in a row were skipped, because a number was not finite.
        """
        with undone_unless_kept(self._buffers, self._device) as keep:
            result = self._step(passes)
            if result.finite:  # else the next step does what this one should have done
                keep()
                self._t += 1
        return result

    @property
    def _device(self) -> torch.device:
        return self._parameters[0].device

    def _step(self, passes: Callable[[], Sequence[Pass]]) -> StepResult:
        self._update.begin()
        parts = passes()
        if self._method.objective == "vql":
            return self._one_pass(parts, None)
        if self._second_pass_is_due():
            return self._two_passes(parts)
        return self._one_pass(parts, self._g_v)

    def _second_pass_is_due(self) -> bool:
        efficient = self._method.efficient
        return efficient is None or self._t % efficient.tau == 0 or self._g_v is None

    def _two_passes(self, parts: Sequence[Pass]) -> StepResult:
        sum_g = GradientSum()
        add_up = not self._apart and self._method.objective in ("sum", "mean")
        sum_g_s = sum_g if add_up else GradientSum()
        numbers = [self._both_gradients(part, sum_g, sum_g_s) for part in parts]
        loss, perturbed_loss, epsilon_norm = torch.stack(numbers).mean(dim=0)

        g_s = sum_g_s.mean(len(parts))
        share_gradients(g_s)
        if not self._apart:
            return self._update.apply(
                self._halved(g_s), loss=loss, perturbed_loss=perturbed_loss, epsilon_norm=epsilon_norm
            )
        g = sum_g.mean(len(parts))
        share_gradients(g)
        g_v = vertical_component(g_s, g) if self._method.efficient else None
        gradient_norm, angle = flat_norm(g), cosine(g_s, g)
        result = self._update.apply(
            self._combined(g_s, g),
            loss=loss,
            perturbed_loss=perturbed_loss,
            gradient_norm=gradient_norm,
            epsilon_norm=epsilon_norm,
            cosine=angle,
        )
        self._g_v = g_v if result.finite else self._g_v
        return result

    def _both_gradients(self, part: Pass, sum_g: GradientSum, sum_g_s: GradientSum) -> Tensor:
        """Both passes over one micro-batch: loss, perturbed loss and ||epsilon||, shape (3,)."""
        ball, method = self._ball, self._method
        device, state = self._device, random_state(self._device)
        with opened(ball) as slots:
            loss, found = part([*self._parameters, *slots])
            g, of_slots = found[: len(self._parameters)], found[len(self._parameters) :]
            epsilon = find_epsilon(ball, of_slots, [g[index] for index in self._further], method.rho)
            sum_g.add(g)

            same_randomness(state, device)
            statistics = (
                nullcontext() if method.second_pass_statistics else statistics_put_back(self._statistics)
            )
            in_float32 = bool(ball.parameters)  # they have no product of their own to go through
            apart = self._precision == "bfloat16" and not in_float32
            with perturbed(ball, epsilon, apart=apart), statistics:
                perturbed_loss, g_s = part(self._parameters, in_float32=in_float32)
            sum_g_s.add(g_s)
        return torch.stack([loss, perturbed_loss, epsilon.norm])

    def _one_pass(self, parts: Sequence[Pass], g_v: list[Tensor] | None) -> StepResult:
        """g alone, with g_s = g + beta ||g|| g_v / ||g_v|| in place of a second pass if ``g_v`` is given."""
        sum_g = GradientSum()
        losses = []
        for part in parts:
            with opened(self._ball):
                loss, g = part(self._parameters)
            sum_g.add(g)
            losses.append(loss)
        g = sum_g.mean(len(parts))
        share_gradients(g)
        update, gradient_norm = g, flat_norm(g)
        if g_v is not None and self._method.efficient is not None:
            g_s = along_vertical(g, g_v, self._method.efficient.beta)
            torch._foreach_add_(g_s, g)
            update = self._combined(g_s, g)
        return self._update.apply(update, loss=torch.stack(losses).mean(), gradient_norm=gradient_norm)

    def _combined(self, g_s: list[Tensor], g: list[Tensor]) -> list[Tensor]:
        """The update of the method's objective, in the memory of ``g_s``."""
        if self._method.objective == "pql":
            return g_s
        torch._foreach_add_(g_s, g)
        return self._halved(g_s)

    def _halved(self, gradients: list[Tensor]) -> list[Tensor]:
        if self._method.objective == "mean":
            torch._foreach_mul_(gradients, 0.5)
        return gradients

    def state_dict(self) -> dict[str, Tensor]:
        """``t`` and the count of skipped steps, 0-dim; ``g_v/<parameter>`` once it is known."""
        state = {"t": torch.tensor(self._t), **self._update.state_dict()}
        if self._g_v is not None:
            state |= {_VERTICAL + name: g_v for name, g_v in zip(self._names, self._g_v, strict=True)}
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._update.load_state_dict(state)
        self._t = int(state["t"])
        known = any(key.startswith(_VERTICAL) for key in state)
        kept = self._method.efficient is not None and self._method.objective != "vql" and self._t > 0
        missing = [name for name in self._names if _VERTICAL + name not in state] if known or kept else []
        if missing:
            raise ArtifactError(
                f"The checkpoint lacks the vertical gradient {_VERTICAL}{missing[0]}, which efficient "
                "training keeps between its second passes. Put back what training wrote, or start a new run."
            )
        pairs = zip(self._names, self._parameters, strict=True)
        self._g_v = (
            [torch.empty_like(p.detach()).copy_(state[_VERTICAL + name]) for name, p in pairs]
            if known
            else None
        )


class SaqStep:
    """``SaqDescent`` on images and labels, by the passes of an objective."""

    def __init__(
        self,
        objective: Objective,
        parameters: Mapping[str, nn.Parameter],
        update: Update,
        ball: Ball,
        method: Saq,
    ) -> None:
        self._objective = objective
        self._descent = SaqDescent(objective.network, objective.precision, parameters, update, ball, method)

    def step(self, images: Tensor, labels: Tensor) -> StepResult:
        return self._descent.step(lambda: self._passes(images, labels))

    def _passes(self, images: Tensor, labels: Tensor) -> list[Pass]:
        parts = self._objective.micro_batches(images, labels)
        return [partial(self._objective.gradients, part) for part in parts]

    def state_dict(self) -> dict[str, Tensor]:
        """As of ``SaqDescent``."""
        return self._descent.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self._descent.load_state_dict(state)
