"""What all sections of a recipe share: strictness, rules between fields and the number types."""

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError, PydanticKnownError

__all__ = [
    "LARGEST",
    "Bits",
    "BrokenRule",
    "Classes",
    "Concentration",
    "Count",
    "Deviation",
    "Finite",
    "Fraction",
    "NonNegative",
    "Positive",
    "Probability",
    "Scalar",
    "Section",
    "Side",
    "WholeNumber",
]

LARGEST = 1e18
"""Of numbers with a fraction: their products in pairs are still numbers of float32."""
Finite = Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=LARGEST, allow_inf_nan=False)]
Deviation = Annotated[float, Field(ge=1e-6, le=1e6, allow_inf_nan=False)]
"""Of pixels from 0 to 1, whose steps are 1/255; float32 overflows when it divides by far smaller ones."""
NonNegative = Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False)]
Concentration = Annotated[float, Field(ge=0.05, le=LARGEST, allow_inf_nan=False)]
"""Of a beta distribution; float32 draws of a smaller one are a half instead of almost nothing or all."""
Fraction = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
Probability = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Bits = Annotated[int, Field(ge=2, le=8)]
Count = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=1, le=4096)]
"""Pixels; what a network takes is far below, and a few images far above fill any memory."""
Classes = Annotated[int, Field(ge=1, le=1_000_000)]
"""Images are counted by class, and a network has a row of weights for each."""
Scalar = bool | int | float | str

BrokenRule = tuple[str, str]
"""The field to point at, as a dotted path below its section, and what is wrong with it."""


def _whole_number(value: object) -> object:
    if type(value) is not int:
        raise PydanticKnownError("int_type")
    return value


WholeNumber = BeforeValidator(_whole_number)
"""For literals of numbers, which would take ``true`` and ``1.0`` for 1."""


class Section(BaseModel):
    """Base of every section: unknown keys are refused, values never coerced, nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def broken_rules(self) -> Iterator[BrokenRule]:
        """What is wrong between fields that are each right by themselves."""
        yield from ()

    @model_validator(mode="after")
    def _obey_rules(self) -> Self:
        broken = tuple(self.broken_rules())
        if broken:
            text = "; ".join(f"{field}: {message}" for field, message in broken)
            raise PydanticCustomError("broken_rules", "{text}", {"text": text, "broken": broken})
        return self
