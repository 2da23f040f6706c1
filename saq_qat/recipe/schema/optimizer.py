"""How a gradient moves the parameters: SGD or AdamW."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from saq_qat.recipe.schema.base import BrokenRule, Fraction, NonNegative, Positive, Section

__all__ = ["AdamW", "Optimizer", "Sgd"]


class _Optimizer(Section):
    decay: Literal["weights", "all"] = Field(
        default="weights",
        description="What decays: weights of layers alone, or norms, biases, class tokens and tables of "
        "positions too (the authors' code for CNNs).",
    )
    clip_level_decay: NonNegative | None = Field(
        default=None,
        description="Weight decay of clip levels, steps and offsets. null: none, but weight_decay for kinds "
        "whose clip level is regularised (pact).",
    )
    clip_level_lr: Positive = Field(
        default=1.0, description="Learning rate of clip levels, steps and offsets relative to lr."
    )
    max_norm: Positive | None = Field(
        default=None, description="Largest norm of the step's whole gradient; longer ones are shortened."
    )


class Sgd(_Optimizer):
    """Stochastic gradient descent with momentum."""

    kind: Literal["sgd"] = Field(description="Stochastic gradient descent.")
    momentum: Fraction = Field(default=0.9, description="Momentum, from 0 to below 1.")
    nesterov: bool = Field(default=False, description="Nesterov momentum.")
    weight_decay: NonNegative = Field(default=1e-4, description="Weight decay, added to the gradient.")

    def broken_rules(self) -> Iterator[BrokenRule]:
        if self.nesterov and self.momentum == 0:
            yield "nesterov", "Nesterov momentum needs a momentum above 0"


class AdamW(_Optimizer):
    """Adam with decoupled weight decay."""

    kind: Literal["adamw"] = Field(description="Adam with decoupled weight decay.")
    betas: tuple[Fraction, Fraction] = Field(
        default=(0.9, 0.999), description="Decay of the averages of the gradient and of its square."
    )
    weight_decay: NonNegative = Field(default=0.05, description="Decoupled weight decay.")


Optimizer = Annotated[Sgd | AdamW, Field(discriminator="kind")]
