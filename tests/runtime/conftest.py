"""Bundles made of a small quantized network."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from saq_qat_runtime.files import sha256
from saq_qat_runtime.manifest import (
    SCHEMA_VERSION,
    FileRecord,
    Gate,
    Golden,
    LayerRecord,
    Manifest,
    Preprocessing,
    RecipeRecord,
    RungRecord,
    ScaleSummary,
    Sizes,
    TensorRecord,
    TensorSpec,
)
from tests.runtime.networks import LABELS, SIDE, images, quantized_network


def file_record(path: Path) -> FileRecord:
    content = path.read_bytes()
    return FileRecord(path.name, sha256(content), len(content))


def build_manifest(model: FileRecord, golden: FileRecord) -> Manifest:
    recipe = "version: 1\nname: tiny\n"
    rung = RungRecord("integer reference = onnxruntime", True, True, 1000, 0, "")
    layer = LayerRecord("conv1", "Conv", 4, "saq", ScaleSummary(6, 0.01, 0.02), 8, "symmetric", True, "")
    tensor = TensorRecord("x1", 4, 0, 15, 0, "uint8", float(np.float32(0.05)), "x1_codes", False)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        name="tiny",
        created_by="saq-qat 0.1.0",
        inputs=(TensorSpec("image", "float32", ("N", 3, SIDE, SIDE)),),
        outputs=(TensorSpec("logits", "float32", ("N", LABELS)),),
        preprocessing=Preprocessing(SIDE, None, 3, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)),
        labels=("ant", "bee", "cat", "dog", "elk"),
        models={"onnxruntime": model},
        golden=Golden(golden, {"onnxruntime": 0.0}),
        layers=(layer,),
        tensors=(tensor,),
        sizes=Sizes(1000, 4000, 4000, {"onnxruntime": model.bytes}),
        gate=Gate(True, False, (rung,)),
        recipe=RecipeRecord(recipe, sha256(recipe.encode())),
        versions={"onnxruntime": ort.__version__},
    )


@pytest.fixture(scope="session")
def network_bytes() -> bytes:
    content: bytes = quantized_network().SerializeToString()
    return content


@pytest.fixture(scope="session")
def expected_logits(network_bytes: bytes) -> NDArray[np.float32]:
    """What plain ONNX Runtime computes for `images(4)`."""
    session = ort.InferenceSession(network_bytes, providers=["CPUExecutionProvider"])
    logits: NDArray[np.float32] = session.run(None, {"image": images(4)})[0]
    return logits


@pytest.fixture
def bundle(tmp_path: Path, network_bytes: bytes, expected_logits: NDArray[np.float32]) -> Path:
    """A complete, proved bundle."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(network_bytes)
    np.savez(folder / "golden.npz", inputs=images(4), logits=expected_logits)
    manifest = build_manifest(file_record(folder / "model.onnx"), file_record(folder / "golden.npz"))
    (folder / "manifest.json").write_text(manifest.to_json())
    return folder


@pytest.fixture
def change_manifest(bundle: Path) -> Callable[..., None]:
    """Replace fields of the bundle's manifest; the result is legal again, unlike a file edited by hand."""

    def change(**fields: object) -> None:
        manifest = Manifest.load(bundle, verify_files=False)
        changed = dataclasses.replace(manifest, **fields)  # type: ignore[arg-type]
        (bundle / "manifest.json").write_text(changed.to_json())

    return change


@pytest.fixture
def replace_model(bundle: Path, change_manifest: Callable[..., None]) -> Callable[[bytes], None]:
    """Put other bytes in the model file, with the hash to match, as an export of a bad model would."""

    def replace(content: bytes) -> None:
        (bundle / "model.onnx").write_bytes(content)
        change_manifest(models={"onnxruntime": file_record(bundle / "model.onnx")})

    return replace
