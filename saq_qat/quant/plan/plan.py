"""The plan: which tensor gets which quantizer, and what will run as integer. Decided before training."""

from dataclasses import dataclass
from typing import Literal

from saq_qat.quant.numerics.grid import Grid
from saq_qat.quant.numerics.initialise import Initialisation

__all__ = ["Finding", "FloatReason", "LayerPlan", "Plan", "Role", "TensorPlan"]

Role = Literal["image", "input", "operand", "residual", "pooled"]


@dataclass(frozen=True)
class TensorPlan:
    """One activation quantizer.

    Attributes:
        name: its name under ``quantizers.`` in the network.
        after: graph node whose value it quantizes.
        offset: its codes start at a learned offset.
        counts_from_zero: codes with an offset are counted from the code of zero, which zero padding needs.
        requantizes: name of the quantizer whose codes it reads, when it narrows an already quantized tensor.
        consumers: graph nodes that asked for this grid.
        shared: every reader of the value sees its codes, not only ``consumers``.
    """

    name: str
    after: str
    role: Role
    kind: str
    bits: int
    grid: Grid
    offset: bool
    counts_from_zero: bool
    initialise: Initialisation
    consumers: tuple[str, ...]
    requantizes: str | None
    shared: bool

    def describe(self) -> str:
        """Codes as a person writes them; ``z`` is the code of zero, which is learned with the offset."""
        codes = self.grid.describe()
        if self.counts_from_zero:
            codes = f"{self.grid.minimum or ''}-z..{self.grid.maximum}-z"
        return codes + (" + offset" if self.offset else "")

    @property
    def fits_uint8(self) -> bool:
        return self.grid.maximum - self.grid.minimum <= 255

    @property
    def fits_int8(self) -> bool:
        """With zero point 0."""
        return self.grid.minimum >= -128 and self.grid.maximum <= 127


@dataclass(frozen=True)
class FloatReason:
    """Why a layer will not run on integers on one target."""

    target: str
    reason: str


@dataclass(frozen=True)
class LayerPlan:
    """One convolution or linear layer.

    Attributes:
        name: module path.
        normalize: weight normalisation before quantization.
        rescale_std: its deviation is multiplied back, because nothing after the layer would undo it.
        input: name of the quantizer of its input, or None (float input).
        output: name of the quantizer its output meets first, or None.
        float_on: the targets on which it will run in float, and why.
    """

    name: str
    op: Literal["conv", "linear"]
    kind: str
    bits: int
    grid: Grid
    initialise: Initialisation
    normalize: bool
    rescale_std: bool
    input: str | None
    output: str | None
    float_on: tuple[FloatReason, ...] = ()

    @property
    def integer(self) -> bool:
        """Whether it will run on integers on every target."""
        return not self.float_on

    def integer_on(self, target: str) -> bool:
        """Whether it will run on integers on one of the targets the plan was judged for."""
        return all(found.target != target for found in self.float_on)

    @property
    def float_reason(self) -> str:
        """Why it will not run on integers, target by target; empty if it will."""
        return "; ".join(f"on {found.target}, {found.reason}" for found in self.float_on)

    @property
    def fits_int8(self) -> bool:
        """With either sign: a BatchNorm of negative gain flips the signs of codes."""
        return max(-self.grid.minimum, self.grid.maximum) <= 127


@dataclass(frozen=True)
class Finding:
    """What a legality rule says: an ``error`` stops deployment, a ``warning`` is slow, a ``note`` informs."""

    rule: str
    level: Literal["error", "warning", "note"]
    where: str
    message: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.level} {self.rule} {self.where}: {self.message} {self.fix}".rstrip()


@dataclass(frozen=True)
class Plan:
    """Quantizers of one network, in graph order, with every finding about them.

    Attributes:
        products: graph nodes that multiply two quantized tensors, as attention does.
    """

    tensors: tuple[TensorPlan, ...]
    layers: tuple[LayerPlan, ...]
    products: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def deployable(self) -> bool:
        """Whether the network has a deploy view; without targets, a plan may have none."""
        return all(tensor.fits_uint8 for tensor in self.tensors) and all(
            layer.fits_int8 for layer in self.layers
        )

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.level == "error")
