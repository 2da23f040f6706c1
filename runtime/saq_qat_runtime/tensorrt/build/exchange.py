"""What the building process is asked and what it answers, as JSON files in one temporary folder.

The building process imports this module: standard library only.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from saq_qat_runtime.bundle.decode import decode, parse_json
from saq_qat_runtime.bundle.records import TensorSpec
from saq_qat_runtime.tensorrt.engine_record import Flavour, Profile

__all__ = [
    "LIBRARY_MODULES",
    "Answer",
    "BuildFailure",
    "LayerSource",
    "Refusal",
    "Request",
    "Stage",
    "Workplace",
]

LIBRARY_MODULES: dict[Flavour, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}

LayerSource = Literal["build log", "engine inspector"]
Stage = Literal["import", "parse", "configure", "build", "inspect"]


class BuildFailure(Exception):  # noqa: N818  travels as a Refusal, never to a user
    """The library said no; raised and caught within the building process."""

    def __init__(self, stage: Stage, messages: tuple[str, ...]) -> None:
        super().__init__(stage, messages)
        self.stage, self.messages = stage, messages


@dataclass(frozen=True)
class _Message:
    """A record that travels as one JSON file."""

    def save(self, path: Path) -> None:
        """Write all fields."""
        path.write_text(json.dumps(asdict(self), allow_nan=False), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read strictly; raises ModelError for what is not such a record."""
        value: Any = parse_json(path.read_text(encoding="utf-8", errors="replace"), path.name)
        return decode(cls, value, path.name)


@dataclass(frozen=True)
class Request(_Message):
    """One build: see BuildOptions. source, timing_cache: absolute paths."""

    flavour: Flavour
    source: str
    precision: Literal["float32", "float16"]
    batch: tuple[int, ...]
    workspace_mib: int
    optimization_level: int
    hardware_compatibility: Literal["none", "ampere_plus", "same_compute_capability"]
    version_compatible: bool
    timing_cache: str | None


@dataclass(frozen=True)
class Answer(_Message):
    """A finished build; the engine lies beside it.

    version: of the library. compute_capabilities: named to the builder, empty if none was. layers: the
    engine's own list of layers as text, in the form of layer_source. notes: of the builder's steps, for the
    user. seconds: from the import of the library to the last byte.
    """

    version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profiles: tuple[Profile, ...]
    compute_capabilities: tuple[str, ...]
    layer_source: LayerSource
    layers: str
    notes: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Refusal(_Message):
    """A build that the library refused, at which stage and in whose words."""

    stage: Stage
    version: str
    messages: tuple[str, ...]


@dataclass(frozen=True)
class Workplace:
    """Names of the files that the two processes share."""

    folder: Path

    @property
    def request(self) -> Path:
        """Written by the parent."""
        return self.folder / "request.json"

    @property
    def answer(self) -> Path:
        """Written last, when the build succeeded."""
        return self.folder / "answer.json"

    @property
    def refusal(self) -> Path:
        """Written instead when the library refused."""
        return self.folder / "refusal.json"

    @property
    def engine(self) -> Path:
        """The engine."""
        return self.folder / "engine.plan"

    @property
    def journal(self) -> Path:
        """Every message of the library, readable after a crash."""
        return self.folder / "journal.txt"

    @property
    def output(self) -> Path:
        """What the building process printed."""
        return self.folder / "output.txt"
