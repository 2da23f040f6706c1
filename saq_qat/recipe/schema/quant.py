"""The `quant` section: grids, bits and places of the quantizers."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from saq_qat.recipe.schema.base import Bits, BrokenRule, Count, Section

__all__ = ["ActivationKind", "ActivationQuantizer", "Override", "Quant", "WeightKind", "WeightQuantizer"]

WeightKind = Literal["saq", "symmetric", "lsq", "dorefa"]
ActivationKind = Literal["saq", "symmetric", "lsq", "pact"]
Initialisation = Literal["ones", "max", "mse", "least_squares"]

_BITS = "Bit-width, 2 to 8."
_INITIALISE = (
    "First clip level or step: ones (clip level 1, the paper), max (the largest magnitude), "
    "mse (the least squared error), least_squares (alternating, as Q-ViT does it)."
)


class WeightQuantizer(Section):
    """How weights become codes."""

    kind: WeightKind = Field(
        default="saq",
        description="saq: learned clip level, the paper's odd grid without zero; "
        "symmetric: learned clip level, a grid with zero; lsq: learned step size; "
        "dorefa: nothing learned, tanh of the weight on the odd grid.",
    )
    bits: Bits = Field(description=_BITS)
    initialise: Initialisation = Field(default="mse", description=_INITIALISE)


class ActivationQuantizer(Section):
    """How the inputs of convolutions and linear layers become codes."""

    kind: ActivationKind = Field(
        default="saq",
        description="saq: learned clip level; symmetric: learned clip level, signed codes even after a ReLU; "
        "lsq: learned step size; pact: learned clip level that learns from clipped values alone and decays.",
    )
    bits: Bits = Field(description=_BITS)
    offset: Literal["none", "bounded", "signed"] = Field(
        default="none",
        description="Where codes start at a learned offset instead of at zero. bounded: inputs that a GELU, "
        "SiLU or Hardswish keeps above a small negative number (LSQ+); signed: every input that may be "
        "negative, such as that of a linear bottleneck. Never in products.",
    )
    initialise: Initialisation = Field(default="mse", description=_INITIALISE)


class Override(Section):
    """An exception for the layers whose names match."""

    match: str = Field(
        min_length=1,
        description="Shell pattern over layer names, such as 'layer4.*'. The last match wins.",
    )
    weight_bits: Bits | None = Field(default=None, description="Bits of the matching layers' weights.")
    activation_bits: Bits | None = Field(default=None, description="Bits of the matching layers' inputs.")
    weight_kind: WeightKind | None = Field(default=None, description="Quantizer of their weights.")
    activation_kind: ActivationKind | None = Field(default=None, description="Quantizer of their inputs.")

    def broken_rules(self) -> Iterator[BrokenRule]:
        exceptions = (self.weight_bits, self.activation_bits, self.weight_kind, self.activation_kind)
        if all(value is None for value in exceptions):
            yield (
                "match",
                "the override changes nothing; set weight_bits, activation_bits, weight_kind "
                "or activation_kind",
            )


class Quant(Section):
    """Grids, bits and places of the quantizers."""

    weight: WeightQuantizer = Field(description="Quantizer of every convolution's and linear layer's weight.")
    activation: ActivationQuantizer = Field(
        description="Quantizer of every convolution's and linear layer's input."
    )
    edge_bits: Bits = Field(
        default=8,
        description="Bits of the first layers, which read nothing that another computed, and of the last, "
        "which no other reads: weight and input, 2 to 8.",
    )
    residual_bits: Bits = Field(
        default=8, description="Bits of residual branches, their sums and pooled features, 2 to 8."
    )
    quantize_image: bool = Field(
        default=True,
        description="Quantize the input image to int8; false keeps the first layer in float (the paper).",
    )
    placement: Literal["deploy", "paper"] = Field(
        default="deploy",
        description="deploy: wherever the targets need codes; paper: convolution and linear inputs only.",
    )
    grid: Literal["deploy", "paper"] = Field(
        default="deploy",
        description="Grid of 8-bit layers. deploy: fits int8 everywhere; "
        "paper: odd integers up to 255, which no int8 holds.",
    )
    normalize_weights: bool | None = Field(
        default=None,
        description="First subtract a convolution weight's mean and divide by its standard deviation (APoT). "
        "null: wherever a weight has a clip level; step sizes (lsq) are learned for the weight as it is.",
    )
    rescale_std: bool = Field(
        default=False,
        description="Multiply the quantized weight by that standard deviation again; "
        "needed where no BatchNorm follows.",
    )
    calibration_batches: Count = Field(
        default=4, description="Training batches that initialise activation quantizers."
    )
    overrides: tuple[Override, ...] = Field(
        default=(), description="Mixed precision: exceptions by layer name."
    )

    def broken_rules(self) -> Iterator[BrokenRule]:
        if self.rescale_std and self.normalize_weights is False:
            yield (
                "rescale_std",
                "there is no deviation to multiply by when normalize_weights is false; "
                "drop rescale_std or normalise",
            )
