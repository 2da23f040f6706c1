"""The whole recipe."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from saq_qat.recipe.schema.base import BrokenRule, Section, WholeNumber
from saq_qat.recipe.schema.data import Data
from saq_qat.recipe.schema.deploy import Deploy
from saq_qat.recipe.schema.model import Model
from saq_qat.recipe.schema.quant import Quant
from saq_qat.recipe.schema.train import Train

__all__ = ["Recipe"]

_QUANTIZING = ("calibration", "quantized", "deploy")


class Recipe(Section):
    """Everything a run of saq-qat is made of."""

    version: Annotated[Literal[1], WholeNumber] = Field(description="Version of the recipe format.")
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=100,
        description="Names the folder under runs/: letters, digits, dots, dashes and underscores.",
    )
    seed: int = Field(
        default=0, ge=0, lt=2**63, description="Seed of initial weights, data order and augmentation."
    )
    model: Model = Field(description="The network.")
    data: Data = Field(
        description="The images: digits, cifar10, cifar100, imagefolder, parquet or synthetic."
    )
    quant: Quant | None = Field(default=None, description="How to quantize; null trains in full precision.")
    train: Train = Field(description="How to train.")
    deploy: Deploy = Field(default=Deploy(), description="Where and how to deploy.")

    def broken_rules(self) -> Iterator[BrokenRule]:
        quantizing = [i for i, stage in enumerate(self.train.stages) if stage.kind in _QUANTIZING]
        if self.quant is None and quantizing:
            kind = self.train.stages[quantizing[0]].kind
            yield (
                f"train.stages.{quantizing[0]}",
                f"a {kind} stage needs the section quant, which is missing or null",
            )
        if self.quant is not None and not quantizing:
            yield (
                "quant",
                "nothing is quantized, because no stage is; add a quantized stage to train.stages "
                "or leave quant out",
            )
