"""The plan: which tensor gets which quantizer, and what will run as integer. Decided before training."""

from dataclasses import dataclass
from typing import Literal

from saq_qat.quant.grid import Grid

__all__ = ["Finding", "LayerPlan", "Plan", "Role", "TensorPlan"]

Role = Literal["image", "input", "residual", "pooled"]


@dataclass(frozen=True)
class TensorPlan:
    """One activation quantizer.

    Attributes:
        name: its name under ``quantizers.`` in the network.
        after: graph node whose value it quantizes.
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
    initialise: Literal["ones", "max", "mse"]
    consumers: tuple[str, ...]
    requantizes: str | None
    shared: bool

    @property
    def offset(self) -> bool:
        return self.kind == "lsq+"

    @property
    def fits_uint8(self) -> bool:
        return self.grid.maximum - self.grid.minimum <= 255


@dataclass(frozen=True)
class LayerPlan:
    """One convolution or linear layer.

    Attributes:
        name: module path.
        normalize: weight normalisation before quantization.
        rescale_std: its deviation is multiplied back, because nothing after the layer would undo it.
        input: name of the quantizer of its input, or None (float input).
        output: name of the quantizer its output meets first, or None.
        float_reason: why it will not run on integers; empty if it will.
    """

    name: str
    op: Literal["conv", "linear"]
    kind: str
    bits: int
    grid: Grid
    initialise: Literal["ones", "max", "mse"]
    normalize: bool
    rescale_std: bool
    input: str | None
    output: str | None
    float_reason: str = ""

    @property
    def integer(self) -> bool:
        return not self.float_reason

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
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.level} {self.rule} {self.where}: {self.message} {self.remedy}".rstrip()


@dataclass(frozen=True)
class Plan:
    """Quantizers of one network, in graph order, with every finding about them."""

    tensors: tuple[TensorPlan, ...]
    layers: tuple[LayerPlan, ...]
    findings: tuple[Finding, ...] = ()

    @property
    def deployable(self) -> bool:
        """Whether the network has a deploy view; without targets, a plan may have none."""
        return all(tensor.fits_uint8 and not tensor.offset for tensor in self.tensors) and all(
            layer.fits_int8 for layer in self.layers
        )

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.level == "error")
