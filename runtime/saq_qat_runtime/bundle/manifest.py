"""The manifest of a bundle: export writes it, runtime and report read it, with the standard library alone."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from saq_qat_runtime.bundle.decode import decode, parse_json, require, shown
from saq_qat_runtime.bundle.deploy import DeployRecord, TensorRtRecord, ThresholdsRecord
from saq_qat_runtime.bundle.files import check_digest, file_sha256, is_sha256, locate, require_bundle
from saq_qat_runtime.bundle.gate import ComparisonRecord, Gate
from saq_qat_runtime.bundle.probes import CoverageRecord, ProbesRecord
from saq_qat_runtime.bundle.records import (
    MANIFEST_FILE,
    CpuRecord,
    FileRecord,
    Golden,
    LayerRecord,
    Preprocessing,
    RecipeRecord,
    ScaleSummary,
    Sizes,
    TensorRecord,
    TensorSpec,
    is_text,
)
from saq_qat_runtime.errors import ModelError, VersionError

__all__ = [
    "MANIFEST_FILE",
    "SCHEMA_VERSION",
    "ComparisonRecord",
    "CoverageRecord",
    "CpuRecord",
    "DeployRecord",
    "FileRecord",
    "Gate",
    "Golden",
    "LayerRecord",
    "Manifest",
    "Preprocessing",
    "ProbesRecord",
    "RecipeRecord",
    "ScaleSummary",
    "Sizes",
    "TensorRecord",
    "TensorRtRecord",
    "TensorSpec",
    "ThresholdsRecord",
    "bundle_sha256",
]

SCHEMA_VERSION = 5
_FIX = "The bundle is damaged or was edited: copy or export it again."
_LARGEST_MANIFEST = 64 * 1024 * 1024


@dataclass(frozen=True)
class Manifest:
    """Everything that runtime and report know of a bundle.

    models: from a target to its file. expected: the file of `bundle.expected`, what the fake-quant network
    answers to validation images. checkpoint_sha256: of the model.safetensors it was exported from. probes:
    codes that a self-test gives, where ONNX Runtime is a target.
    """

    schema_version: int
    name: str
    created_by: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    models: dict[str, FileRecord]
    golden: Golden
    expected: FileRecord
    layers: tuple[LayerRecord, ...]
    tensors: tuple[TensorRecord, ...]
    sizes: Sizes
    cpu: CpuRecord
    deploy: DeployRecord
    gate: Gate
    recipe: RecipeRecord
    checkpoint_sha256: str
    versions: dict[str, str]
    probes: ProbesRecord | None = None

    def __post_init__(self) -> None:
        require(len(self.inputs) > 0 and len(self.outputs) > 0, "a model needs an input and an output.")
        image = (
            "N",
            self.preprocessing.channels,
            self.preprocessing.image_size,
            self.preprocessing.image_size,
        )
        shape, logits = self.inputs[0].shape, self.outputs[0].shape
        require(shape == image, f"input shape {list(shape)} contradicts preprocessing, which gives {image}.")
        require(logits[-1:] == (len(self.labels),), f"{len(self.labels)} labels for outputs {list(logits)}.")
        for label in self.labels:
            require(is_text(label), f"label {label!r} must be text, and not empty.")
        require(len(self.models) > 0, "a bundle needs a model.")
        require(len(self.layers) > 0, "a bundle needs a layer.")
        reads_codes = any(layer.integer and layer.input_bits is not None for layer in self.layers)
        require(
            len(self.tensors) > 0 or not reads_codes, "integer layers need tensors that hold their codes."
        )
        require(is_sha256(self.checkpoint_sha256), "checkpoint_sha256 must be 64 hexadecimal digits.")
        targets, tolerated = sorted(self.models), sorted(self.golden.logits_tolerance)
        require(targets == tolerated, f"golden has a logits_tolerance for {tolerated}, models are {targets}.")
        self.gate.check_flips(self.deploy.thresholds.max_flip_rate)

    def to_json(self) -> str:
        """JSON text, equal for equal manifests; raises ModelError for values `from_json` would refuse."""
        try:
            text = json.dumps(asdict(self), indent=2, sort_keys=True, allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"the manifest cannot be written: {error}. Use plain, finite Python values."
            ) from None
        require(
            Manifest.from_json(text) == self, "the manifest changes when written; use plain Python values."
        )
        return text

    @classmethod
    def from_json(cls, text: str, where: str = MANIFEST_FILE) -> Self:
        """Parse strictly; raises ModelError that names `where`, the field and what is wrong with it."""
        value = parse_json(text, where, _FIX)
        version = value.get("schema_version") if isinstance(value, dict) else None
        rule = f"{where} has no schema_version; it is not the manifest of a bundle"
        require(type(version) is int, f"{rule}. Name the folder of a bundle, or export it again.")
        if version != SCHEMA_VERSION:
            raise VersionError(_other_version(where, version))
        try:
            return decode(cls, value, where)
        except ModelError as error:
            raise ModelError(f"{error} {_FIX}") from error

    @classmethod
    def load(cls, folder: Path, *, verify_files: bool = True) -> Self:
        """Read manifest.json of `folder` and, unless told otherwise, check every file it lists."""
        require_bundle(folder)
        path = locate(folder, MANIFEST_FILE)
        try:
            require(path.stat().st_size <= _LARGEST_MANIFEST, f"{path} is too large to be a manifest. {_FIX}")
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{path} cannot be read: {error}. {_FIX}") from error
        manifest = cls.from_json(text, str(path))
        if verify_files:
            for file in manifest.files():
                check_digest(folder, file.name, file.sha256, file.bytes)
        return manifest

    def files(self) -> tuple[FileRecord, ...]:
        """Every file the bundle consists of, the manifest aside."""
        probes = () if self.probes is None else (self.probes.file,)
        return (*self.models.values(), self.golden.file, *probes, self.expected)


def bundle_sha256(folder: Path) -> str:
    """What results know a bundle by: the SHA-256 of its manifest.json, which holds those of its files."""
    path = locate(folder, MANIFEST_FILE)
    try:
        return file_sha256(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}. {_FIX}") from error


def _other_version(where: str, version: object) -> str:
    return (
        f"{where} has schema_version {shown(version)}; this runtime reads {SCHEMA_VERSION}. "
        "Use the saq-qat version that wrote it, or export the bundle again."
    )
