"""The SAQ step for a training loop of one's own: the loop computes a loss, the step does the rest."""

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from saq_qat.errors import ArtifactError, RecipeError
from saq_qat.optim.build import trainable_parameters
from saq_qat.optim.gradients import laid_out_as
from saq_qat.optim.perturbation import ball_of
from saq_qat.optim.saq import SaqDescent
from saq_qat.optim.update import SKIPPED, StepResult, Update
from saq_qat.quant.numerics.layers import quant_layers
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.recipe.load import parse_section
from saq_qat.recipe.schema import EfficientTraining, Saq
from saq_qat.recipe.schema.base import Positive, Section
from saq_qat.recipe.schema.train import Precision

__all__ = ["SAQ", "LossClosure"]

LossClosure = Callable[[], Tensor]
"""Runs the network on a batch and gives the mean loss, 0-dim, without a backward pass."""

_LISTED = 5
_WRITE = "Write step(lambda: F.cross_entropy(net(images), labels)), without backward, item or detach."
_USED_UP = "backward through the graph a second time"
"""In torch's message of a loss whose graph is gone."""


class _StepSettings(Section):
    """What a recipe says beside the method."""

    max_norm: Annotated[Positive, Field(ge=1e-30)] | None
    """Far shorter ones are 0 in float32, and nothing would be trained."""
    precision: Precision


class SAQ:
    """SAQ steps (paper Eq. 15 and Algorithm 1) of any loss of a quantized network.

    As with ``torch.optim.LBFGS``, the loss comes as a closure, because a step computes it twice, at Q(w) and
    at Q(w) + epsilon. Both calls must see the same batch: load it before. Random numbers are set back between
    them, so that dropout drops the same. Move the network to its device first, as for an optimizer. The step
    does ``zero_grad``, ``backward`` and ``optimizer.step``, and averages the gradients of several processes
    (without DistributedDataParallel).

    Args:
        network: quantized; other modules may belong to the loss, if the optimizer holds their parameters.
        optimizer: over every parameter of ``network`` that requires a gradient. Its learning rate is the
            loop's own affair.
        rho, case, objective, perturb, efficient: as the method ``saq`` of a recipe's stage has them.
        max_norm: longest gradient, longer ones are scaled down; none if None.
        precision: ``bfloat16`` runs the closure under autocast.

    Raises:
        RecipeError: the network is not quantized or has nothing to perturb, the optimizer misses parameters
            or its own step needs a closure, or a setting breaks a rule of recipes.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        *,
        rho: float,
        case: Literal[1, 2, 3] = 3,
        objective: Literal["sum", "pql", "vql", "mean"] = "sum",
        perturb: Sequence[Literal["weight", "bias", "norm", "clip_level"]] = ("weight",),
        efficient: EfficientTraining | None = None,
        max_norm: float | None = None,
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        parts = tuple(perturb) if isinstance(perturb, Sequence) and not isinstance(perturb, str) else perturb
        settings = {"rho": rho, "case": case, "objective": objective, "perturb": parts}
        method = parse_section(Saq, {"kind": "saq", **settings, "efficient": efficient}, "SAQ")
        step = parse_section(_StepSettings, {"max_norm": max_norm, "precision": precision}, "SAQ")
        _check_quantized(network)
        _check_steps_alone(optimizer)
        named = _all_parameters(network, optimizer)
        steps = [m for m in network.modules() if isinstance(m, Quantizer) and m.kind.learns_step]
        update = Update(
            optimizer, list(named.values()), max_norm=step.max_norm, names=list(named), quantizers=steps
        )
        self._descent = SaqDescent(network, step.precision, named, update, ball_of(network, method), method)
        self._precision = step.precision
        self._warned = False
        self.result: StepResult | None = None
        """What the last step measured; None before the first."""

    def __call__(self, closure: LossClosure) -> float:
        """Make one step; the loss of the unperturbed network.

        A step whose loss or gradient is not finite is skipped; the first one is warned of.

        Raises:
            RecipeError: the closure is none, or gives no loss that gradients can be taken of.
            DivergedError: ten steps in a row were skipped, because a loss or gradient was not finite.
        """
        if not callable(closure):
            raise RecipeError(
                "A step takes a closure, which it calls for the loss of each pass; "
                f"{_described(closure)}. {_WRITE}"
            )

        def gradients(inputs: Sequence[Tensor], *, in_float32: bool = False) -> tuple[Tensor, list[Tensor]]:
            loss = self._loss(closure, inputs[0].device, in_float32=in_float32)
            found = _gradients(loss, inputs)
            return loss.detach(), laid_out_as(inputs, found)

        with torch.enable_grad():
            result = self.result = self._descent.step(lambda: [gradients])
        if not result.finite and not self._warned:
            self._warned = True
            warnings.warn(
                f"A step was skipped, because its loss ({result.loss:.3g}) or a gradient is not finite; "
                "nothing moved. Later ones are skipped in silence, and ten in a row end the training. Lower "
                "the learning rate or rho, set max_norm, or look at the batch.",
                stacklevel=2,
            )
        return result.loss

    def _loss(self, closure: LossClosure, device: torch.device, *, in_float32: bool) -> Tensor:
        enabled = self._precision == "bfloat16" and not in_float32
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            loss = closure()
        if not isinstance(loss, Tensor) or loss.dim() != 0 or not loss.requires_grad:
            raise RecipeError(
                "The closure of a step must give the loss, one number that the network computed: "
                f"{_described(loss)}. {_WRITE}"
            )
        return loss.float()

    def state_dict(self) -> dict[str, Tensor]:
        """What it takes, beside network and optimizer, to go on exactly."""
        return self._descent.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on where ``state_dict`` was taken.

        Raises:
            ArtifactError: it is no such state.
        """
        missing = [key for key in ("t", SKIPPED) if key not in state]
        if missing:
            found = ", ".join(map(str, list(state)[:_LISTED])) or "nothing"
            raise ArtifactError(
                f"The state of a step must be what its state_dict gave; it has {found} and lacks "
                f"{', '.join(missing)}. The network and the optimizer load their own."
            )
        self._descent.load_state_dict(state)


def _gradients(loss: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    try:
        return torch.autograd.grad(loss, inputs, allow_unused=True, materialize_grads=True)
    except RuntimeError as error:
        if _USED_UP not in str(error):
            raise
        raise RecipeError(
            "The step calls backward itself, on a loss that the closure computes anew at each call; backward "
            f"was called on this one already. {_WRITE}"
        ) from error


def _check_quantized(network: object) -> None:
    if not isinstance(network, nn.Module) or not quant_layers(network):
        raise RecipeError(
            f"SAQ trains a quantized network, and this {type(network).__name__} has no quantized layer. "
            "Quantize it first: net = sq.quantize(model, images), and make the optimizer of net.parameters()."
        )


def _check_steps_alone(optimizer: object) -> None:
    """Its ``step()`` is called once gradients are set, with nothing that could compute them again."""
    if not isinstance(optimizer, Optimizer):
        raise RecipeError(
            f"SAQ takes an optimizer of torch.optim, got {type(optimizer).__name__}. Make one: "
            "torch.optim.SGD(net.parameters(), lr=0.01)."
        )
    parameters = list(inspect.signature(type(optimizer).step).parameters.values())[1:]  # after self
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in variadic]
    if needed:
        raise RecipeError(
            f"The optimizer must step by gradients alone; {type(optimizer).__name__}.step needs "
            f"{', '.join(needed)}. Take one such as torch.optim.SGD or AdamW."
        )


def _described(loss: object) -> str:
    if not isinstance(loss, Tensor):
        return f"got {type(loss).__name__}"
    return f"got a tensor of shape {tuple(loss.shape)}{'' if loss.requires_grad else ' without gradient'}"


def _all_parameters(network: nn.Module, optimizer: Optimizer) -> dict[str, nn.Parameter]:
    """Those of the network, all of which the optimizer must hold, and what it holds beside them."""
    held = {id(p): p for group in optimizer.param_groups for p in group["params"]}
    named = trainable_parameters(network)
    missing = [name for name, parameter in named.items() if id(parameter) not in held]
    if missing:
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        raise RecipeError(
            "The optimizer must hold every parameter of the quantized network that requires a gradient; it "
            f"lacks {len(missing)} of {len(named)}: {', '.join(missing[:_LISTED])}{more}. Make it of the "
            "parameters of the quantized network, which is a copy; requires_grad_(False) freezes one."
        )
    own = {id(parameter) for parameter in named.values()}
    beside = [p for key, p in held.items() if key not in own and p.requires_grad]
    return named | {f"beside the network, {index}": p for index, p in enumerate(beside)}
