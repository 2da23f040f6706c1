"""CIFAR in its binary form, beside torchvision's reading of the python form of the same images."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from torchvision import datasets

from saq_qat.data import ImageData, open_data
from saq_qat.errors import DataError
from saq_qat.recipe.schema import Data

PER_FILE = 7
CIFAR10 = [f"class {n}" for n in range(10)]
FINE, COARSE = [f"fine {n}" for n in range(100)], [f"coarse {n}" for n in range(20)]


def opened(kind: str, root: Path, **section: Any) -> ImageData:
    value = {"kind": kind, "root": str(root), **section}
    return open_data(TypeAdapter[Data](Data).validate_python(value), 0)


def records(seed: int, *classes: int) -> NDArray[np.uint8]:
    """Label bytes, one for each number of classes, and 3072 of pixels."""
    random = np.random.default_rng(seed)
    labels = [random.integers(0, count, (PER_FILE, 1), np.uint8) for count in classes]
    return np.hstack([*labels, random.integers(0, 256, (PER_FILE, 3072), np.uint8)])


def write_cifar10(root: Path) -> None:
    """Both forms of the same images."""
    binary, python = root / "cifar-10-batches-bin", root / "cifar-10-batches-py"
    for folder in (binary, python):
        folder.mkdir(parents=True)
    (binary / "batches.meta.txt").write_text("\n".join(CIFAR10) + "\n\n")
    (python / "batches.meta").write_bytes(pickle.dumps({"label_names": CIFAR10}))
    for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        content = records(number, 10)
        (binary / f"{name}.bin").write_bytes(content.tobytes())
        batch = {"data": content[:, 1:], "labels": content[:, 0].tolist()}
        (python / name).write_bytes(pickle.dumps(batch))


def write_cifar100(root: Path) -> None:
    binary, python = root / "cifar-100-binary", root / "cifar-100-python"
    for folder in (binary, python):
        folder.mkdir(parents=True)
    (binary / "fine_label_names.txt").write_text("\n".join(FINE))
    (binary / "coarse_label_names.txt").write_text("\n".join(COARSE))
    (python / "meta").write_bytes(pickle.dumps({"fine_label_names": FINE}))
    for number, name in enumerate(("train", "test")):
        content = records(number, 20, 100)
        (binary / f"{name}.bin").write_bytes(content.tobytes())
        batch = {"data": content[:, 2:], "fine_labels": content[:, 1].tolist()}
        (python / name).write_bytes(pickle.dumps(batch))


@pytest.mark.parametrize(("kind", "train_size"), [("cifar10", 5 * PER_FILE), ("cifar100", PER_FILE)])
def test_the_binary_form_is_what_torchvision_reads_of_the_python_form(
    kind: str, train_size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    write_cifar10(tmp_path) if kind == "cifar10" else write_cifar100(tmp_path)
    data = opened(kind, tmp_path)
    reader = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[kind]
    for ours, train in ((data.train, True), (data.val, False)):
        theirs = reader(str(tmp_path), train=train)
        assert len(ours) == len(theirs) == (train_size if train else PER_FILE)
        for index in range(len(ours)):
            pixels, label = ours[index]
            assert torch.equal(pixels, torch.from_numpy(theirs.data[index]).permute(2, 0, 1))
            assert label == theirs.targets[index]
        assert data.classes == tuple(theirs.classes)


def test_the_folder_itself_may_be_named(tmp_path: Path) -> None:
    write_cifar10(tmp_path)
    assert len(opened("cifar10", tmp_path / "cifar-10-batches-bin").val) == PER_FILE


def test_coarse_labels_are_the_first_byte(tmp_path: Path) -> None:
    write_cifar100(tmp_path)
    fine, coarse = opened("cifar100", tmp_path), opened("cifar100", tmp_path, labels="coarse")
    content = records(0, 20, 100)
    assert coarse.train.labels.tolist() == content[:, 0].tolist()
    assert fine.train.labels.tolist() == content[:, 1].tolist()
    assert (coarse.classes, fine.classes) == (tuple(COARSE), tuple(FINE))


def test_coarse_labels_are_refused_where_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="binary archive of CIFAR-100 alone"):
        opened("cifar100", tmp_path, labels="coarse")
    with pytest.raises(ValidationError, match="CIFAR-10 has one kind of labels"):
        opened("cifar10", tmp_path, labels="coarse")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("test_batch.bin", bytes(3073 + 1), "records of 3073 bytes; it has 3074"),
        ("test_batch.bin", b"", "it has 0 bytes"),
        ("data_batch_3.bin", bytes([10]) + bytes(3072), "labels must be below 10; there is a 10"),
        ("data_batch_3.bin", None, "data_batch_3.bin' cannot be read"),
        ("batches.meta.txt", b"cat\ndog\n", "must name 10 classes, one a line; it names 2"),
        ("batches.meta.txt", b"\xff\xfe\n" * 10, "is no text in UTF-8"),
    ],
)
def test_files_that_are_something_else_are_refused_by_name(
    file: str, content: bytes | None, message: str, tmp_path: Path
) -> None:
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-bin" / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message.replace(".", r"\.")):
        opened("cifar10", tmp_path)
