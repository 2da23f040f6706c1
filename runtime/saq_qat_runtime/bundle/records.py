"""What a manifest is made of: frozen records that check themselves; a broken rule raises ModelError."""

from dataclasses import dataclass
from typing import Literal

from saq_qat_runtime.bundle.decode import require, shown
from saq_qat_runtime.bundle.files import is_plain_name, is_sha256, sha256

__all__ = [
    "DEVIATIONS",
    "LARGEST_MEAN",
    "MANIFEST_FILE",
    "CpuRecord",
    "FileRecord",
    "Golden",
    "LayerRecord",
    "Preprocessing",
    "RecipeRecord",
    "ScaleSummary",
    "Sizes",
    "TensorRecord",
    "TensorSpec",
    "is_text",
]

MANIFEST_FILE = "manifest.json"
LARGEST_MEAN, DEVIATIONS = 1e18, (1e-6, 1e6)
"""Of pixels from 0 to 1, whose steps are 1/255: nothing within overflows float32. Recipes have the same."""
_LARGEST_SIDE = 7_000  # fifty million pixels, as of an image that is given
_LARGEST_TOLERANCE = 1e6  # of logits; more would let any answer pass
_BITS = range(2, 9)
_CODE_LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}


def is_text(name: str) -> bool:
    """Whether a name can be shown and sent: JSON can spell halves of characters, which UTF-8 cannot."""
    return bool(name) and not any("\ud800" <= character <= "\udfff" for character in name)


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of the graph; "N" stands for the batch and may only come first."""

    name: str
    dtype: str
    shape: tuple[int | Literal["N"], ...]

    def __post_init__(self) -> None:
        sizes = self.shape[1:] if self.shape[:1] == ("N",) else self.shape
        require(
            all(size != "N" and size > 0 for size in sizes),
            f"shape {list(self.shape)} of {self.name}: sizes must be positive.",
        )


@dataclass(frozen=True)
class Preprocessing:
    """From an image to the network's input: resize, centre crop, scale to 0..1, normalise.

    resize: short side in pixels before the centre crop; None resizes straight to a square of `image_size`.
    """

    image_size: int
    resize: int | None
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        side = self.image_size if self.resize is None else self.resize
        require(self.image_size > 0, f"image_size must be positive, got {self.image_size}.")
        require(side >= self.image_size, "resize must be at least image_size.")
        require(side <= _LARGEST_SIDE, f"image_size and resize may be {_LARGEST_SIDE} at most, got {side}.")
        require(self.channels in (1, 3), f"channels must be 1 or 3, got {self.channels}.")
        require(
            len(self.mean) == len(self.std) == self.channels,
            f"mean and std need {self.channels} numbers each.",
        )
        for mean in self.mean:
            rule = f"mean must lie in {-LARGEST_MEAN:g}..{LARGEST_MEAN:g}"
            require(-LARGEST_MEAN <= mean <= LARGEST_MEAN, f"{rule}, got {shown(mean)}.")
        smallest, largest = DEVIATIONS
        for deviation in self.std:
            rule = f"std must lie in {smallest:g}..{largest:g}"
            require(smallest <= deviation <= largest, f"{rule}, got {shown(deviation)}.")


@dataclass(frozen=True)
class FileRecord:
    """A file of the bundle: plain name, SHA-256 in hexadecimal, size in bytes."""

    name: str
    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        require(is_plain_name(self.name), f"file name {self.name!r} must be a plain name without folders.")
        require(self.name != MANIFEST_FILE, "the manifest cannot list itself.")
        require(is_sha256(self.sha256), f"sha256 of {self.name} must be 64 hexadecimal digits.")
        require(self.bytes >= 0, f"bytes of {self.name} must not be negative.")


@dataclass(frozen=True)
class Golden:
    """Inputs with the codes and logits they must give (`inputs`, `logits` in an .npz file).

    logits_tolerance: largest allowed absolute difference of a logit, for each target; 0 demands equality.
    """

    file: FileRecord
    logits_tolerance: dict[str, float]

    def __post_init__(self) -> None:
        for target, tolerance in self.logits_tolerance.items():
            rule = f"logits_tolerance of {target} must not be negative, nor above {_LARGEST_TOLERANCE:g}"
            require(0 <= tolerance <= _LARGEST_TOLERANCE, f"{rule}, got {tolerance}.")


@dataclass(frozen=True)
class ScaleSummary:
    """Scales of one weight: how many (one, or one per output channel), the smallest and the largest."""

    count: int
    smallest: float
    largest: float

    def __post_init__(self) -> None:
        require(
            self.count >= 1 and 0 < self.smallest <= self.largest, f"scales must be positive, got {self}."
        )


@dataclass(frozen=True)
class LayerRecord:
    """One convolution or linear layer.

    Bits, grids and scales are None where it stays in float; `reason` then says why.
    constant_channels: how many give their bias alone, since it outgrew its integers.
    """

    name: str
    op: str
    weight_bits: int | None
    weight_grid: str | None
    weight_scale: ScaleSummary | None
    input_bits: int | None
    input_grid: str | None
    integer: bool
    reason: str
    constant_channels: int = 0

    def __post_init__(self) -> None:
        require(is_text(self.name), f"name {shown(self.name)} of a layer must be text, and not empty.")
        for bits in (self.weight_bits, self.input_bits):
            require(bits is None or bits in _BITS, f"bits of layer {self.name} must be 2 to 8, got {bits}.")
        rule = f"constant_channels of layer {self.name} must not be negative, got {self.constant_channels}."
        require(self.constant_channels >= 0, rule)


@dataclass(frozen=True)
class TensorRecord:
    """One quantized tensor: value = scale * (code - zero_point) + offset; None: no offset.

    code_tensor: name of the ONNX tensor that holds its codes.
    ties: several float operations compute it, a sum or more, which another CPU may round otherwise at a tie.
    """

    name: str
    bits: int
    code_min: int
    code_max: int
    zero_point: int
    dtype: Literal["uint8", "int8"]
    scale: float
    code_tensor: str
    signed: bool
    offset: float | None = None
    ties: bool = False

    def __post_init__(self) -> None:
        require(is_text(self.name), f"name {shown(self.name)} of a tensor must be text, and not empty.")
        lowest, highest = _CODE_LIMITS[self.dtype]
        legal = lowest <= self.code_min < self.code_max <= highest and lowest <= self.zero_point <= highest
        require(legal, f"codes {self.code_min}..{self.code_max} of {self.name} do not fit {self.dtype}.")
        require(self.scale > 0, f"scale of {self.name} must be positive, got {self.scale}.")
        require(self.bits in _BITS, f"bits of {self.name} must be 2 to 8, got {self.bits}.")


@dataclass(frozen=True)
class Sizes:
    """Size of the network in four ways.

    parameters: how many; float_bytes: at 4 bytes each; theoretical_bits: each at its bit-width; file_bytes:
    of the model file of each target.
    """

    parameters: int
    float_bytes: int
    theoretical_bits: int
    file_bytes: dict[str, int]

    def __post_init__(self) -> None:
        counts = (self.parameters, self.float_bytes, self.theoretical_bits, *self.file_bytes.values())
        require(min(counts) >= 0, f"sizes must not be negative, got {min(counts)}.")


@dataclass(frozen=True)
class CpuRecord:
    """On which CPUs any session of ONNX Runtime gives the trained codes; all of them, for most bundles.

    cpu: "any", or "vnni" where the recipe asks for no more. over_pair_bound: integer products whose pairs may
    leave int16, where kernels of x86 CPUs without VNNI saturate; a Session then asks for exact kernels.
    elsewhere: what plain sessions on such CPUs give, in words.
    """

    cpu: Literal["any", "vnni"]
    over_pair_bound: tuple[str, ...]
    elsewhere: str


@dataclass(frozen=True)
class RecipeRecord:
    """The resolved recipe as text, with its SHA-256."""

    text: str
    sha256: str

    def __post_init__(self) -> None:
        require(
            sha256(self.text.encode(errors="replace")) == self.sha256, "the recipe's text has another sha256."
        )
