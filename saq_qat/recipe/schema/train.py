"""The `train` section: the stages of training and what they share."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from saq_qat.recipe.schema.base import BrokenRule, Count, Fraction, NonNegative, Positive, Section
from saq_qat.recipe.schema.method import Plain, Sam, Saq
from saq_qat.recipe.schema.optimizer import Optimizer

__all__ = ["DeployStage", "FloatStage", "QuantizedStage", "Stage", "Train"]

_ORDER = ("float", "quantized", "deploy")


class _Stage(Section):
    epochs: Count = Field(description="Passes over the training images.")
    lr: Positive = Field(description="Peak learning rate; falls to 0 along a cosine.")
    warmup_epochs: NonNegative = Field(
        default=0.0, description="Epochs of linear warm-up from 0, part of `epochs`."
    )

    def broken_rules(self) -> Iterator[BrokenRule]:
        if self.warmup_epochs > self.epochs:
            yield "warmup_epochs", f"must be at most epochs = {self.epochs} (got {self.warmup_epochs})"


class FloatStage(_Stage):
    """Training in full precision."""

    kind: Literal["float"] = Field(description="Train in full precision.")
    method: Annotated[Plain | Sam, Field(discriminator="kind")] = Field(
        default=Plain(kind="plain"), description="plain or sam."
    )


class QuantizedStage(_Stage):
    """Training with quantized weights and activations."""

    kind: Literal["quantized"] = Field(description="Train with quantized weights and activations.")
    method: Annotated[Plain | Saq, Field(discriminator="kind")] = Field(
        default=Plain(kind="plain"), description="plain quantization-aware training, or saq."
    )


class DeployStage(_Stage):
    """Fine-tuning of the deployed arithmetic: BatchNorm folded and frozen, biases rounded."""

    kind: Literal["deploy"] = Field(description="Train with BatchNorm folded and biases rounded.")
    method: Annotated[Plain | Saq, Field(discriminator="kind")] = Field(
        default=Plain(kind="plain"),
        description="plain or saq, with BatchNorm folded and biases on their integer grid.",
    )


Stage = Annotated[FloatStage | QuantizedStage | DeployStage, Field(discriminator="kind")]


class Train(Section):
    """The stages of training and what they share."""

    batch_size: Count = Field(description="Images of one optimizer step, over all processes.")
    micro_batch_size: Count | None = Field(
        default=None,
        description="m of m-sharpness: images that share one perturbation; "
        "the whole share of a process if null.",
    )
    optimizer: Optimizer = Field(description="sgd or adamw.")
    stages: tuple[Stage, ...] = Field(
        min_length=1,
        description="In this order: float stages, quantized stages, one deploy stage; each optional.",
    )
    label_smoothing: Fraction = Field(default=0.0, description="Label smoothing of the cross entropy.")
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="Autocast of convolutions and matrix products; quantizers stay in float32.",
    )
    deterministic: bool = Field(default=True, description="Bit-for-bit repeatable steps on one machine.")
    checkpoint_steps: Count | None = Field(
        default=None, description="Save every so many steps too; only after each epoch if null."
    )

    def broken_rules(self) -> Iterator[BrokenRule]:
        m = self.micro_batch_size
        if m is not None and self.batch_size % m:
            yield "micro_batch_size", f"must divide batch_size = {self.batch_size} (got {m})"
        for index, (before, stage) in enumerate(zip(self.stages, self.stages[1:], strict=False), 1):
            if _ORDER.index(stage.kind) < _ORDER.index(before.kind):
                yield (
                    f"stages.{index}",
                    f"a {stage.kind} stage cannot follow a {before.kind} stage; "
                    "the order is float, quantized, deploy",
                )
            elif stage.kind == before.kind == "deploy":
                yield f"stages.{index}", "there can be only one deploy stage; give it more epochs instead"
