"""A bundle whose recorded images lie in a folder."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from PIL import Image

from saq_qat_runtime.bundle.expected import EXPECTED_FILE, Expected
from saq_qat_runtime.bundle.manifest import Golden, Manifest
from saq_qat_runtime.preprocess import preprocess
from tests.runtime.bundles import file_record
from tests.runtime.networks import SIDE

COUNT = 20
CODES = ("x1_codes",)


@pytest.fixture
def photos(bundle: Path, network_bytes: bytes, change_manifest: Callable[..., None]) -> Path:
    """Images as PNG, whose answers by plain ONNX Runtime the bundle records; golden codes too."""
    folder = bundle.parent / "photos"
    generator = np.random.default_rng(3)
    for index in range(COUNT):
        path = folder / "class" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(path)
    settings = Manifest.load(bundle).preprocessing
    files = sorted(folder.rglob("*.png"))
    batch = np.concatenate([preprocess(file, settings) for file in files])
    answers = plain(network_bytes, batch)[0].argmax(axis=1)
    names = tuple(file.relative_to(folder).as_posix() for file in files)
    record(bundle, change_manifest, Expected(names, tuple(map(int, answers)), tuple(map(int, answers))))
    logits, *codes = plain(network_bytes, batch[:2], CODES)
    np.savez(bundle / "golden.npz", inputs=batch[:2], logits=logits, x1_codes=codes[0])
    change_manifest(golden=Golden(file_record(bundle / "golden.npz"), {"onnxruntime": 0.0}))
    return folder


def plain(
    content: bytes, batch: NDArray[np.float32], codes: tuple[str, ...] = ()
) -> list[NDArray[np.generic]]:
    """Logits and codes by ONNX Runtime and the onnx package, without any code of ours."""
    model = onnx.load_from_string(content)
    for name in codes:
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None))
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: list[NDArray[np.generic]] = session.run(["logits", *codes], {"image": batch})
    return found


def record(bundle: Path, change_manifest: Callable[..., None], expected: Expected) -> None:
    """Put other answers into the bundle, with the hash to match."""
    (bundle / EXPECTED_FILE).write_bytes(expected.to_csv())
    change_manifest(expected=file_record(bundle / EXPECTED_FILE))


def turned(expected: Expected, count: int) -> Expected:
    """The first answers another label each."""
    answers = [(answer + (index < count)) % 5 for index, answer in enumerate(expected.predictions)]
    return replace(expected, predictions=tuple(answers))
