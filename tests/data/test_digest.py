"""Digests of images: by labels and names, and by what the files hold."""

from collections.abc import Callable
from pathlib import Path

import pytest

from saq_qat.data import ImageData
from saq_qat.data.digest import files_digest, images_digest
from tests.data.test_open import opened

MakeFolder = Callable[..., Path]


def folder_data(root: Path) -> ImageData:
    return opened(kind="imagefolder", root=str(root), image_size=8, resize=8)


def swap(root: Path, one: str, other: str) -> None:
    """Exchange what two files hold, so that names, labels and sizes stay."""
    first, second = root / one, root / other
    held = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(held)


@pytest.mark.parametrize("split", ["train", "val"])
def test_another_content_under_the_same_name_is_seen_by_the_files_digest_alone(
    make_folder: MakeFolder, split: str
) -> None:
    root = make_folder(train=3, val=2)
    before = folder_data(root)
    names, files = images_digest(before), files_digest(before)
    assert files == files_digest(folder_data(root))
    swap(root / split, "bee/0.png", "cat/1.png")
    after = folder_data(root)
    assert images_digest(after) == names and files_digest(after) != files


def test_of_many_files_those_that_are_read_are_spread_evenly(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saq_qat.data.digest._FILES_READ", 3)
    root = make_folder(train=4, val=1)
    before = files_digest(folder_data(root))
    swap(root / "train", "ant/1.png", "cat/3.png")
    assert files_digest(folder_data(root)) == before
    swap(root / "train", "ant/1.png", "cat/0.png")
    assert files_digest(folder_data(root)) != before


def test_a_folder_moved_has_the_same_digests(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder(train=2, val=1)
    before = folder_data(root)
    digests = images_digest(before), files_digest(before)
    root.rename(tmp_path / "moved")
    after = folder_data(tmp_path / "moved")
    assert (images_digest(after), files_digest(after)) == digests


def test_a_file_that_cannot_be_read_is_left_to_whoever_decodes_it(make_folder: MakeFolder) -> None:
    root = make_folder(train=2, val=1)
    data = folder_data(root)
    whole = files_digest(data)
    (root / "train" / "ant" / "0.png").unlink()
    assert files_digest(data) not in (None, whole)


def test_pixels_in_memory_are_no_files() -> None:
    assert files_digest(opened(kind="digits", image_size=8)) is None
