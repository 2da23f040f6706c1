"""How a step of training finds its gradient: plain, SAM or SAQ."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from saq_qat.recipe.schema.base import BrokenRule, NonNegative, Positive, Section, WholeNumber

__all__ = ["EfficientTraining", "Plain", "Sam", "Saq"]


class Plain(Section):
    """The gradient of the loss, one pass a step."""

    kind: Literal["plain"] = Field(description="The gradient of the loss, one pass a step.")


class Sam(Section):
    """Sharpness-aware minimisation of the full-precision network, two passes a step."""

    kind: Literal["sam"] = Field(description="Sharpness-aware minimisation, two passes a step.")
    rho: Positive = Field(
        default=0.05, description="Radius of the ball around the full-precision weights (SAM, Eq. 4)."
    )


class EfficientTraining(Section):
    """Second passes only now and then (SAQ, Algorithm 1)."""

    tau: Annotated[int, Field(ge=2)] = Field(
        default=4, description="A second pass every tau steps (Algorithm 1)."
    )
    beta: Positive = Field(
        default=0.7, description="Length of the reused vertical gradient relative to ||g||."
    )


class Saq(Section):
    """Sharpness-aware quantization: the ball lies around the quantized weights, two passes a step."""

    kind: Literal["saq"] = Field(description="Sharpness-aware quantization, two passes a step.")
    rho: NonNegative = Field(
        description="Radius of the ball around the quantized weights; the paper searches 0.02 to 1."
    )
    case: Annotated[Literal[1, 2, 3], WholeNumber] = Field(
        default=3, description="How quantization noise and perturbation depend on each other (Table 1)."
    )
    objective: Literal["sum", "pql", "vql", "mean"] = Field(
        default="sum",
        description="Gradient of the step. sum: g_s + g (Eq. 15); pql: g_s; vql: g; mean: half of sum.",
    )
    case2_space: Literal["normalised", "raw"] = Field(
        default="normalised",
        description="What case 2 perturbs: the normalised weight, or the raw one before normalisation.",
    )
    perturb: tuple[Literal["weight", "bias", "norm", "clip_level"], ...] = Field(
        default=("weight",),
        min_length=1,
        description="What the ball holds; the authors' first code used all but the clip levels of weights.",
    )
    second_pass_statistics: bool = Field(
        default=False,
        description="Let the perturbed pass update BatchNorm statistics too (the authors' first code).",
    )
    efficient: EfficientTraining | None = Field(
        default=None,
        description="Reuse the vertical gradient between second passes; null runs both passes each step.",
    )

    def broken_rules(self) -> Iterator[BrokenRule]:
        if self.efficient is not None and self.objective not in ("sum", "mean"):
            yield (
                "efficient",
                "efficient training stands in for g_s in a sum, so objective must be 'sum' or 'mean' "
                f"(got {self.objective!r})",
            )
        if self.case2_space == "raw" and self.case != 2:
            yield "case2_space", f"'raw' has a meaning in case 2 only (case is {self.case}); leave it out"
        if len(set(self.perturb)) < len(self.perturb):
            yield "perturb", "names a part twice"
