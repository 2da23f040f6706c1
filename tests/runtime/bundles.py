"""Records of a small bundle."""

from pathlib import Path

import numpy as np
import onnxruntime as ort

from saq_qat_runtime.bundle.files import sha256
from saq_qat_runtime.bundle.manifest import (
    SCHEMA_VERSION,
    ComparisonRecord,
    CpuRecord,
    DeployRecord,
    FileRecord,
    Gate,
    Golden,
    LayerRecord,
    Manifest,
    Preprocessing,
    RecipeRecord,
    ScaleSummary,
    Sizes,
    TensorRecord,
    TensorRtRecord,
    TensorSpec,
    ThresholdsRecord,
)
from tests.runtime.networks import LABELS, SIDE

__all__ = ["DEPLOY", "build_manifest", "file_record"]

DEPLOY = DeployRecord(
    ThresholdsRecord(1.0, 0.05), TensorRtRecord("float32", (1, 8, 32), 4096, 3, "none", False)
)


def file_record(path: Path) -> FileRecord:
    content = path.read_bytes()
    return FileRecord(path.name, sha256(content), len(content))


def build_manifest(model: FileRecord, golden: FileRecord, expected: FileRecord) -> Manifest:
    recipe = "version: 1\nname: tiny\n"
    comparison = ComparisonRecord("integer reference = onnxruntime", True, True, 1000, 0, "")
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
        expected=expected,
        layers=(layer,),
        tensors=(tensor,),
        sizes=Sizes(1000, 4000, 4000, {"onnxruntime": model.bytes}),
        cpu=CpuRecord("any", (), "the same codes on every CPU, in any session"),
        deploy=DEPLOY,
        gate=Gate(True, False, (comparison,)),
        recipe=RecipeRecord(recipe, sha256(recipe.encode())),
        checkpoint_sha256=sha256(b"model.safetensors"),
        versions={"onnxruntime": ort.__version__},
    )
