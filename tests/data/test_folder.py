"""Image folders: what is found, what is refused, and with which message."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from saq_qat.data.folder import find_images
from saq_qat.errors import DataError

MakeFolder = Callable[..., Path]


def test_classes_are_sorted_folder_names_and_files_are_sorted(make_folder: MakeFolder) -> None:
    train, val, classes = find_images(make_folder(train=3, val=2))
    assert classes == ("ant", "bee", "cat")
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert val.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert [path.name for path in train.paths[:3]] == ["0.png", "1.png", "2.png"]
    assert all(path.parent.name == classes[label] for path, label in zip(val.paths, val.labels, strict=True))


def test_subfolders_are_searched_and_hidden_names_passed_over(make_folder: MakeFolder) -> None:
    root = make_folder(train=1, val=1)
    nested = root / "train" / "ant" / "deep"
    nested.mkdir()
    (root / "train" / "ant" / "0.png").rename(nested / "UPPER.PNG")
    (root / "train" / ".cache").mkdir()
    (root / "train" / "ant" / ".DS_Store").write_bytes(b"x")
    train, _, classes = find_images(root)
    assert classes == ("ant", "bee", "cat")
    assert train.paths[0] == nested / "UPPER.PNG"


def test_a_class_may_lack_validation_images(make_folder: MakeFolder) -> None:
    root = make_folder(train=1, val=1)
    (root / "val" / "ant" / "0.png").unlink()
    (root / "val" / "ant").rmdir()
    _, val, classes = find_images(root)
    assert classes == ("ant", "bee", "cat")
    assert val.labels.tolist() == [1, 2]


@pytest.mark.parametrize("missing", ["", "train", "val"])
def test_missing_folders_show_the_expected_layout(missing: str, tmp_path: Path) -> None:
    root = tmp_path / "images"
    for split in {"train", "val"} - {missing} if missing else set():
        (root / split / "ant").mkdir(parents=True)
    with pytest.raises(DataError, match=r"has no folder '.*Expected layout: .*train/<class>"):
        find_images(root)


def test_a_split_without_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="has no class folders"):
        find_images(tmp_path)


def test_images_side_by_side_are_refused_with_what_their_numbers_mean(make_folder: MakeFolder) -> None:
    root = make_folder(train=1, val=1)
    for number, folder in enumerate(sorted((root / "val").iterdir())):
        (folder / "0.png").rename(root / "val" / f"ILSVRC2012_val_{number:08d}.png")
        folder.rmdir()
    with pytest.raises(DataError, match=r"val' has no class folders.*side by side.*not places among the sor"):
        find_images(root)


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_empty_class_is_refused_by_name(split: str, make_folder: MakeFolder) -> None:
    root = make_folder(train=1, val=1)
    (root / split / "bee" / "0.png").unlink()
    with pytest.raises(DataError, match=rf"{split}/bee' has none"):
        find_images(root)


def test_a_class_of_val_alone_is_refused_by_name(make_folder: MakeFolder) -> None:
    root = make_folder(train=1, val=1)
    (root / "val" / "ant").rename(root / "val" / "wasp")
    with pytest.raises(DataError, match="alone has wasp"):
        find_images(root)


def test_other_files_are_refused_by_path(make_folder: MakeFolder) -> None:
    root = make_folder(train=1, val=1)
    (root / "train" / "bee" / "notes.txt").write_text("bees")
    with pytest.raises(DataError, match=r"bee/notes\.txt"):
        find_images(root)


def test_a_folder_that_cannot_be_listed_is_named(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(train=1, val=1)
    list_folder = os.scandir

    def refuse_bees(path: str | Path) -> object:
        if Path(path).name == "bee":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", refuse_bees)
    with pytest.raises(DataError, match=r"train/bee' cannot be read: Permission denied"):
        find_images(root)


@pytest.mark.parametrize("leads_to", [".", "..", "../../val"])
def test_a_link_that_leads_back_is_refused_at_once(make_folder: MakeFolder, leads_to: str) -> None:
    """Two of them would be searched some 2^40 times before the system stops."""
    root = make_folder(train=1, val=1)
    for name in ("one", "two"):
        (root / "train" / "ant" / name).symlink_to(leads_to)
    with pytest.raises(DataError, match=r"train/ant/.*was searched already.*remove the link"):
        find_images(root)


def test_a_link_that_leads_elsewhere_is_followed(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder(train=1, val=1)
    (root / "train" / "ant").rename(tmp_path / "elsewhere")
    (root / "train" / "ant").symlink_to(tmp_path / "elsewhere")
    assert len(find_images(root)[0].paths) == 3


def test_the_validation_folder_may_have_another_name(make_folder: MakeFolder) -> None:
    root = make_folder(train=1, val=1)
    (root / "val").rename(root / "test")
    with pytest.raises(DataError, match=r"set data\.val_folder=test"):
        find_images(root)
    _, val, _ = find_images(root, "test")
    assert [path.parent.parent.name for path in val.paths] == ["test"] * 3
