"""The `train.teacher` section: knowledge distillation."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from saq_qat.recipe.schema.base import BrokenRule, NonNegative, Positive, Section
from saq_qat.recipe.schema.model import Model

__all__ = ["Teacher"]


class Teacher(Section):
    """A trained network whose predictions are targets beside the labels (knowledge distillation).

    The loss is the cross entropy with the labels plus that with the teacher's softmax, each times its weight.
    """

    run: str | None = Field(
        default=None,
        min_length=1,
        description="Folder of a run whose network teaches, relative to the working directory.",
    )
    checkpoint: Literal["last", "best"] = Field(
        default="last",
        description="Which checkpoint of that run; best has the highest top-1 of its stage's epochs.",
    )
    model: Model | None = Field(
        default=None,
        description="In place of a run: a network, with its weights as pretrained. It must expect the "
        "input that data gives.",
    )
    weight: Positive = Field(
        default=1.0, description="Weight of the cross entropy with the teacher's softmax."
    )
    label_weight: NonNegative = Field(
        default=1.0,
        description="Weight of the cross entropy with the labels; 0 learns from the teacher alone.",
    )
    temperature: Positive = Field(
        default=1.0,
        description="Divides the logits of both networks before the softmax. The teacher's term is "
        "multiplied by its square, which keeps the size of the gradient.",
    )
    mode: Literal["eval", "train"] = Field(
        default="eval",
        description="eval: the teacher answers as it was judged, each image by itself. "
        "train: its BatchNorm uses the batch and dropout is on (PROFIT's code).",
    )

    def broken_rules(self) -> Iterator[BrokenRule]:
        if self.run is None and self.model is None:
            yield "run", "a teacher is a run (run) or a network with its weights (model); give one"
        if self.run is not None and self.model is not None:
            yield "model", "the teacher is given by run already; drop one of them"
        if self.run is None and self.checkpoint != "last":
            yield "checkpoint", "names a checkpoint of run, which is missing"
        if self.model is not None and self.model.pretrained is None:
            yield "model.pretrained", "a teacher needs trained weights; give a .safetensors or .pth file"
        if self.model is not None and not self.model.pretrained_strict:
            yield "model.pretrained_strict", "must be true: a teacher without its head knows no classes"
