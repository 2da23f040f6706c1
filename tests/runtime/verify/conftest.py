"""A bundle whose recorded images lie in a folder."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saq_qat_runtime.bundle.expected import EXPECTED_FILE, Expected
from saq_qat_runtime.bundle.manifest import Golden, Manifest
from saq_qat_runtime.preprocess import preprocess
from tests.runtime.bundles import file_record
from tests.runtime.networks import SIDE, run_plain

COUNT = 20


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
    answers = run_plain(network_bytes, batch)[0].argmax(axis=1)
    names = tuple(file.relative_to(folder).as_posix() for file in files)
    record(bundle, change_manifest, Expected(names, tuple(map(int, answers)), tuple(map(int, answers))))
    logits, codes = run_plain(network_bytes, batch[:2])
    np.savez(bundle / "golden.npz", inputs=batch[:2], logits=logits, x1_codes=codes["x1_codes"])
    change_manifest(golden=Golden(file_record(bundle / "golden.npz"), {"onnxruntime": 0.0}))
    return folder


def record(bundle: Path, change_manifest: Callable[..., None], expected: Expected) -> None:
    """Put other answers into the bundle, with the hash to match."""
    (bundle / EXPECTED_FILE).write_bytes(expected.to_csv())
    change_manifest(expected=file_record(bundle / EXPECTED_FILE))


def turned(expected: Expected, count: int) -> Expected:
    """The first answers another label each."""
    answers = [(answer + (index < count)) % 5 for index, answer in enumerate(expected.predictions)]
    return replace(expected, predictions=tuple(answers))
