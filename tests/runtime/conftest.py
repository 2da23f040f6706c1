"""Bundles made of a small quantized network."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from saq_qat_runtime.bundle.manifest import Manifest
from tests.runtime.bundles import build_manifest, file_record, write_expected
from tests.runtime.fake_cuda import FakeDevice
from tests.runtime.fake_tensorrt import FakeTensorRt
from tests.runtime.networks import images, quantized_network, run_plain
from tests.runtime.workshop import TENSORRT_MODEL, Workshop


@pytest.fixture(scope="session")
def network_bytes() -> bytes:
    content: bytes = quantized_network().SerializeToString()
    return content


@pytest.fixture(scope="session")
def expected_logits(network_bytes: bytes) -> NDArray[np.float32]:
    """What plain ONNX Runtime computes for `images(4)`."""
    return run_plain(network_bytes, images(4))[0]


@pytest.fixture(scope="session")
def expected_codes(network_bytes: bytes) -> dict[str, NDArray[np.uint8]]:
    """The codes that go with them."""
    return run_plain(network_bytes, images(4))[1]


@pytest.fixture
def bundle(
    tmp_path: Path,
    network_bytes: bytes,
    expected_logits: NDArray[np.float32],
    expected_codes: dict[str, NDArray[np.uint8]],
) -> Path:
    """A complete, proved bundle."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(network_bytes)
    np.savez(folder / "golden.npz", inputs=images(4), logits=expected_logits, **expected_codes)  # type: ignore[arg-type]  # no array is called allow_pickle
    model, golden = (file_record(folder / name) for name in ("model.onnx", "golden.npz"))
    manifest = build_manifest(model, golden, write_expected(folder, expected_logits))
    (folder / "manifest.json").write_text(manifest.to_json())
    return folder


@pytest.fixture
def change_manifest(bundle: Path) -> Callable[..., None]:
    """Replace fields of the bundle's manifest; the result is legal again, unlike a file edited by hand."""

    def change(**fields: object) -> None:
        manifest = Manifest.load(bundle, verify_files=False)
        changed = dataclasses.replace(manifest, **fields)  # type: ignore[arg-type]  # fields of any type
        (bundle / "manifest.json").write_text(changed.to_json())

    return change


@pytest.fixture
def replace_model(bundle: Path, change_manifest: Callable[..., None]) -> Callable[[bytes], None]:
    """Put other bytes in the model file, with the hash to match, as an export of a bad model would."""

    def replace(content: bytes) -> None:
        (bundle / "model.onnx").write_bytes(content)
        change_manifest(models={"onnxruntime": file_record(bundle / "model.onnx")})

    return replace


@pytest.fixture
def workshop(bundle: Path, change_manifest: Callable[..., None]) -> Workshop:
    (bundle / TENSORRT_MODEL).write_bytes(b"the tensorrt graph")
    manifest = Manifest.load(bundle)
    models = {**manifest.models, "tensorrt": file_record(bundle / TENSORRT_MODEL)}
    golden = dataclasses.replace(manifest.golden, logits_tolerance={"onnxruntime": 0.0, "tensorrt": 0.5})
    change_manifest(models=models, golden=golden)
    return Workshop(bundle, FakeTensorRt(FakeDevice()), {"tensorrt", "tensorrt-lean", "tensorrt-rtx"})


@pytest.fixture
def tensorrt_only(workshop: Workshop, change_manifest: Callable[..., None]) -> Workshop:
    """A bundle of a recipe whose only target is tensorrt."""
    manifest = Manifest.load(workshop.folder)
    golden = dataclasses.replace(manifest.golden, logits_tolerance={"tensorrt": 0.5})
    change_manifest(models={"tensorrt": manifest.models["tensorrt"]}, golden=golden)
    return workshop
