"""What stands beside a TensorRT engine: its origin, its library, its GPU, and which layers run as int8.

An engine file has no room for such notes, yet it is executable code of one library version and one kind of
GPU: whoever loads it must be able to check both first.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

from saq_qat_runtime.bundle.decode import decode, parse_json, require, shown
from saq_qat_runtime.bundle.files import is_sha256, read
from saq_qat_runtime.bundle.records import FileRecord, TensorSpec
from saq_qat_runtime.errors import ModelError

__all__ = [
    "ENGINE_FILES",
    "ENGINE_SCHEMA_VERSION",
    "Audit",
    "EngineRecord",
    "Flavour",
    "LayerVerdict",
    "Profile",
    "record_name",
]

Flavour = Literal["tensorrt", "tensorrt-rtx"]

ENGINE_SCHEMA_VERSION = 1
_FIX = "Build the engine again: saq-qat-runtime build."
ENGINE_FILES: dict[Flavour, str] = {"tensorrt": "model.plan", "tensorrt-rtx": "model.rtx.plan"}


def record_name(engine: str) -> str:
    """Name of the file that stands beside the engine file ``engine``."""
    return f"{engine}.json"


@dataclass(frozen=True)
class Profile:
    """Shapes of one dynamic input that the engine accepts, and the one it was optimized for."""

    input: str
    minimum: tuple[int, ...]
    optimum: tuple[int, ...]
    maximum: tuple[int, ...]

    def __post_init__(self) -> None:
        require(
            len(self.minimum) == len(self.optimum) == len(self.maximum),
            f"profile of {self.input}: minimum, optimum and maximum must have as many dimensions.",
        )
        triples = zip(self.minimum, self.optimum, self.maximum, strict=True)
        require(
            all(1 <= low <= middle <= high for low, middle, high in triples),
            f"profile of {self.input}: needs 1 <= minimum <= optimum <= maximum.",
        )

    @classmethod
    def over_batch(cls, name: str, shape: tuple[int, ...], batch: tuple[int, ...]) -> Self | None:
        """For an input whose batch, and nothing else, is dynamic (-1 in `shape`); None for any other.

        batch: smallest, usual and largest. Raises ModelError unless they are in order and positive.
        """
        if shape[:1] != (-1,) or -1 in shape[1:]:
            return None
        return cls(name, *((size, *shape[1:]) for size in batch))


@dataclass(frozen=True)
class LayerVerdict:
    """Whether one convolution or matrix product of the ONNX graph became an int8 layer of the engine.

    node: its name in the ONNX graph. engine_layer: the layer that computes it, empty if none was found.
    expected: its inputs are quantized, so that it should be int8. reason: why it is not, empty if it is.
    """

    node: str
    op: str
    expected: bool
    integer: bool
    engine_layer: str
    reason: str


@dataclass(frozen=True)
class Audit:
    """The engine's own list of layers beside the graph: "integer" is read off the engine, never assumed.

    source: where the list came from, such as "build log" or "engine inspector".
    """

    source: str
    layers: tuple[LayerVerdict, ...]

    @property
    def total(self) -> int:
        """Convolutions and matrix products in all."""
        return len(self.layers)

    @property
    def integer(self) -> int:
        """Those that became int8 layers."""
        return sum(layer.integer for layer in self.layers)

    @property
    def rule(self) -> str:
        """The rule that a layer in `missed` breaks, as `saq-qat check --build` names it."""
        return "TRT202" if self.source == "build log" else "TRT301"

    @property
    def missed(self) -> tuple[LayerVerdict, ...]:
        """Those that should have become int8 and did not."""
        return tuple(layer for layer in self.layers if layer.expected and not layer.integer)


@dataclass(frozen=True)
class EngineRecord:
    """One engine file.

    file: the engine. source: the ONNX file it was built from. version: of the library that built it.
    gpu: the GPU it was built on, None where it was built without one. compute_capabilities: it may run on,
    such as "9.0"; empty if the builder was not told. precision: of what runs between the quantized layers.
    cuda, driver: versions on the building machine, None where there was no GPU.
    inputs, outputs: as the engine gives them. build_seconds: wall time of the build.
    """

    schema_version: int
    created_by: str
    file: FileRecord
    source: FileRecord
    flavour: Flavour
    version: str
    gpu: str | None
    compute_capabilities: tuple[str, ...]
    cuda: str | None
    driver: str | None
    precision: Literal["float32", "float16"]
    hardware_compatibility: Literal["none", "ampere_plus", "same_compute_capability"]
    version_compatible: bool
    optimization_level: int
    workspace_mib: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profiles: tuple[Profile, ...]
    audit: Audit
    build_seconds: float

    def __post_init__(self) -> None:
        require(is_sha256(self.source.sha256), "the source of an engine needs a sha256.")
        require(self.build_seconds >= 0, "build_seconds must not be negative.")

    def to_json(self) -> str:
        """JSON text, equal for equal records."""
        return json.dumps(asdict(self), indent=2, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> Self:
        """Parse strictly; raises ModelError that names `where`, the field and what is wrong with it."""
        value = parse_json(text, where, _FIX)
        version = value.get("schema_version") if isinstance(value, dict) else None
        require(
            version == ENGINE_SCHEMA_VERSION,
            f"{where} has schema_version {shown(version)}; this runtime reads {ENGINE_SCHEMA_VERSION}. "
            f"{_FIX}",
        )
        try:
            return decode(cls, value, where)
        except ModelError as error:
            raise ModelError(f"{error} {_FIX}") from error

    @classmethod
    def load(cls, folder: Path, engine: str) -> Self:
        """The record of the engine file `engine` in `folder`; raises ModelError if missing or damaged."""
        name = record_name(engine)
        text = read(folder, name).decode("utf-8", errors="replace")
        return cls.from_json(text, str(folder / name))
