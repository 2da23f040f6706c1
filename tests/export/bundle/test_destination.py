"""Folders that a bundle may be written to, and what else may lie in them: pipes, links, folders."""

import json
import os
import socket
from pathlib import Path

import pytest
from pytest import MonkeyPatch

from saq_qat.errors import ArtifactError
from saq_qat_export.bundle.destination import check_destination
from saq_qat_export.bundle.write import write_bundle
from saq_qat_runtime.bundle.manifest import Manifest
from tests.export.bundle.test_write import bundle_of

OTHER_TOOL = {"schema_version": 5, "created_by": "another tool 1"}


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    folder = tmp_path / "exports" / "bundle"
    write_bundle(bundle_of(tmp_path / "first"), folder)
    return folder


def test_pipes_sockets_and_large_files_of_the_user_stay(
    exported: Path, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    (exported / "deep").mkdir()
    os.mkfifo(exported / "pipe")
    os.mkfifo(exported / "deep" / "pipe")
    monkeypatch.chdir(exported)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
    (exported / "large").touch()
    os.truncate(exported / "large", 1 << 40)
    (exported / "nowhere").symlink_to("nothing")
    write_bundle(bundle_of(tmp_path / "again"), exported)
    assert (exported / "pipe").is_fifo() and (exported / "deep" / "pipe").is_fifo()
    assert (exported / "socket").is_socket() and (exported / "nowhere").is_symlink()
    assert (exported / "large").stat().st_size == 1 << 40
    assert list(exported.parent.iterdir()) == [exported]


def test_files_are_copied_where_the_disk_knows_no_second_names(
    exported: Path, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    (exported / "NOTES.txt").write_text("mine")
    (exported / "link").symlink_to("NOTES.txt")
    with monkeypatch.context() as patched:
        patched.setattr(os, "link", refuse)
        write_bundle(bundle_of(tmp_path / "again"), exported)
    assert (exported / "NOTES.txt").read_text() == "mine" and (exported / "link").is_symlink()


@pytest.mark.parametrize("way", [".", "deep/..", "../bundle"])
def test_the_folder_one_stands_in_is_a_folder_like_any(
    exported: Path, tmp_path: Path, monkeypatch: MonkeyPatch, way: str
) -> None:
    (exported / "deep").mkdir()
    (exported / "NOTES.txt").write_text("mine")
    monkeypatch.chdir(exported)
    write_bundle(bundle_of(tmp_path / "again", b"another graph"), Path(way))
    assert Manifest.load(exported).models["tensorrt"].bytes == len(b"another graph")
    assert (exported / "NOTES.txt").read_text() == "mine"
    assert list(exported.parent.iterdir()) == [exported]


def test_an_interrupt_between_the_two_renames_brings_the_older_bundle_back(
    exported: Path, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    before = (exported / "manifest.json").read_bytes()
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        moved = rename(self, target)
        if moved.name == "old":
            raise KeyboardInterrupt
        return moved

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_bundle(bundle_of(tmp_path / "again", b"another graph"), exported)
    assert (exported / "manifest.json").read_bytes() == before
    assert list(exported.parent.iterdir()) == [exported]


def test_a_link_to_a_bundle_stays_a_link(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(exported)
    write_bundle(bundle_of(tmp_path / "again", b"another graph"), tmp_path / "current")
    assert (tmp_path / "current").is_symlink()
    assert Manifest.load(exported).models["tensorrt"].bytes == len(b"another graph")


def test_a_link_to_nothing_is_a_new_folder_there(tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(tmp_path / "new")
    write_bundle(bundle_of(tmp_path / "first"), tmp_path / "current")
    Manifest.load(tmp_path / "new")


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "My PWA", "icons": []}',
        json.dumps({**dict.fromkeys(("models", "golden", "gate", "recipe")), **OTHER_TOOL}),
        '{"schema_version": 5, "created_by": "saq-qat 1"}',
        "[]",
        "{",
        "[" * 100_000,
        "\xff",
    ],
)
def test_a_folder_whose_manifest_is_of_another_kind_stays_as_it_was(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "webapp"
    folder.mkdir()
    for name in ("model.onnx", "expected.csv", "model.plan"):
        (folder / name).write_text("mine")
    (folder / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(
        ArtifactError, match=r"this is no bundle \(its manifest\.json is .* Name a new folder"
    ):
        write_bundle(bundle_of(tmp_path / "first"), folder)
    assert {path.name: path.read_text() for path in folder.iterdir() if path.name != "manifest.json"} == (
        dict.fromkeys(("model.onnx", "expected.csv", "model.plan"), "mine")
    )


@pytest.mark.parametrize("version", [1, 4, 99])
def test_a_bundle_of_another_version_is_replaced(exported: Path, tmp_path: Path, version: int) -> None:
    manifest = json.loads((exported / "manifest.json").read_text()) | {"schema_version": version, "other": 1}
    (exported / "manifest.json").write_text(json.dumps(manifest))
    (exported / "model.openvino.onnx").write_text("mine")
    write_bundle(bundle_of(tmp_path / "again", b"another graph"), exported)
    assert Manifest.load(exported).models["tensorrt"].bytes == len(b"another graph")
    assert (exported / "model.openvino.onnx").read_text() == "mine"


def test_a_file_of_the_user_under_a_name_that_is_needed_is_not_overwritten(
    exported: Path, tmp_path: Path
) -> None:
    manifest = json.loads((exported / "manifest.json").read_text())
    del manifest["models"]["tensorrt"]
    (exported / "manifest.json").write_text(json.dumps(manifest))
    (exported / "model.tensorrt.onnx").write_text("mine")
    with pytest.raises(ArtifactError, match=r"model\.tensorrt\.onnx: .* so it is yours\. Move it elsewhere"):
        write_bundle(bundle_of(tmp_path / "again"), exported)
    assert (exported / "model.tensorrt.onnx").read_text() == "mine"


def test_what_cannot_be_a_bundle_is_refused_before_any_work(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "circle").symlink_to("circle")
    (exported / "golden.npz").unlink()
    (exported / "golden.npz").mkdir()
    for folder, said in {
        tmp_path / "file": "this is no bundle",
        tmp_path / "file" / "below": "file is a file. Name another folder",
        tmp_path / ("o" * 300): "File name too long. Name another folder",
        tmp_path / "circle": "no bundle can be written there: .*Name another folder",
        exported: r"golden\.npz: is a folder, and a bundle has a file of this name. Move it",
        Path("/"): "this is no bundle",
    }.items():
        with pytest.raises(ArtifactError, match=said):
            check_destination(folder)
