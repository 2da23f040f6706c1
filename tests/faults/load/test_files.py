"""Files of a bundle, and images, that are pipes, devices, endless, sparse or of another kind."""

import io
import os
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from saq_qat.data.transforms import read_square
from saq_qat.errors import DataError
from saq_qat_runtime import promises
from saq_qat_runtime.bundle import files, regular_file
from saq_qat_runtime.bundle.manifest import Golden, Manifest
from saq_qat_runtime.bundle.records import Preprocessing
from saq_qat_runtime.errors import InputError, ModelError
from saq_qat_runtime.preprocess import preprocess
from saq_qat_runtime.session import Session
from tests.runtime.bundles import file_record
from tests.runtime.networks import LABELS, images

Change = Callable[..., None]
SETTINGS = Preprocessing(8, None, 3, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


def as_pipe(path: Path) -> None:
    os.mkfifo(path)


def as_link_to_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def as_terabyte_of_holes(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def as_folder(path: Path) -> None:
    path.mkdir()


ODD = (as_pipe, as_link_to_zeros, as_terabyte_of_holes, as_folder)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "golden.npz"])
@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)
def test_a_file_of_a_bundle_must_be_a_regular_one_of_its_size(
    bundle: Path, name: str, make: Callable[[Path], None], verify: bool
) -> None:
    (bundle / name).unlink()
    make(bundle / name)
    with pytest.raises(ModelError):
        Session.load(bundle, threads=1, verify=verify).self_test()


@pytest.mark.parametrize("make", ODD, ids=lambda make: make.__name__)
def test_an_image_must_be_a_regular_file_in_serving_and_in_training(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "image.png"
    make(path)
    with pytest.raises(InputError):
        preprocess(path, SETTINGS)
    with pytest.raises(DataError, match=str(path)):
        read_square(path, 8, None)


def test_the_model_is_read_and_hashed_once(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    own_read, own_digest = regular_file.read_regular, files.file_sha256

    def reading(path: Path, most: int = files.LARGEST_FILE) -> bytes:
        read.append(path.name)
        return own_read(path, most)

    def hashing(path: Path) -> str:
        read.append(path.name)
        return own_digest(path)

    monkeypatch.setattr(files, "read_regular", reading)
    monkeypatch.setattr(files, "file_sha256", hashing)
    Session.load(bundle, threads=1)
    assert {"golden.npz", "model.onnx"} <= set(read)
    assert len(read) == len(set(read))


def test_every_file_is_verified_though_only_one_is_loaded(bundle: Path, expected_logits: Any) -> None:
    np.savez(bundle / "golden.npz", inputs=images(4), logits=expected_logits + 1)
    with pytest.raises(ModelError, match=r"golden\.npz .*the manifest says"):
        Session.load(bundle, threads=1)


def member(content: bytes, **changes: Any) -> bytes:
    """A zip whose `inputs` are these bytes, beside whole logits."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", changes.get("method", zipfile.ZIP_DEFLATED)) as archive:
        archive.writestr("inputs.npy", content)
        archive.writestr("logits.npy", saved(np.zeros((4, LABELS), np.float32)))
    return stream.getvalue()


def saved(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array)
    return stream.getvalue()


def lying_header(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue() + bytes(64)


def damaged(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 0xFF] * 8) + content[place + 8 :]


def encrypted(content: bytes) -> bytes:
    """With the flag that asks for a password."""
    marked = bytearray(content)
    for start in (marked.find(b"PK\x03\x04") + 6, marked.find(b"PK\x01\x02") + 8):
        marked[start] |= 1
    return bytes(marked)


GOLDEN = {
    "no zip": b"golden",
    "nothing": b"",
    "a single array": saved(images(4)),
    "no array inside": member(b"not an array"),
    "an array of terabytes": member(lying_header((4, 1 << 20, 1 << 20))),
    "an array of negative size": member(lying_header((-4, 3, 8, 8))),
    "a header that is no dictionary": member(b"\x93NUMPY\x01\x00\x04\x00(((("),
    "a newer format": member(b"\x93NUMPY\x09\x00" + bytes(32)),
    "damaged": damaged(member(saved(images(4))), 60),
    "encrypted": encrypted(member(saved(images(4)))),
    "bzip2 cut short": member(saved(images(4)), method=zipfile.ZIP_BZIP2)[:300],
    "lzma, damaged": damaged(member(saved(images(4)), method=zipfile.ZIP_LZMA), 80),
    "raw deflate": zlib.compress(saved(images(4))),
}


@pytest.mark.parametrize("content", GOLDEN.values(), ids=GOLDEN.keys())
def test_a_golden_file_that_is_none_is_a_model_error(
    bundle: Path, change_manifest: Change, content: bytes
) -> None:
    (bundle / "golden.npz").write_bytes(content)
    tolerance = Manifest.load(bundle, verify_files=False).golden.logits_tolerance
    change_manifest(golden=Golden(file_record(bundle / "golden.npz"), tolerance))
    with Session.load(bundle, threads=1) as session, pytest.raises(ModelError, match=r"golden\.npz"):
        session.self_test()


def test_a_golden_file_is_not_unpacked_if_it_is_large(
    bundle: Path, change_manifest: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promises, "_LARGEST_GOLDEN", 1000)
    with Session.load(bundle, threads=1) as session, pytest.raises(ModelError, match="1000 are allowed"):
        session.self_test()
