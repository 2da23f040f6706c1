"""A small bundle in a folder, to be harmed case by case."""

import json
from pathlib import Path
from typing import Any

from saq_qat_runtime.bundle.files import sha256
from saq_qat_runtime.errors import SessionError
from saq_qat_runtime.session import Session
from tests.runtime.networks import images
from tests.runtime.serve.conftest import write_bundle

__all__ = ["PICTURE", "SmallBundle", "refused", "used"]

PICTURE = bytes(
    [66, 77, 58, 0, 0, 0, 0, 0, 0, 0, 54, 0, 0, 0, 40, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 24] + [0] * 29
)
"""A BMP of one pixel."""


class SmallBundle:
    """The files of a bundle as they were made, and the folder where harmed ones are put."""

    def __init__(self, folder: Path) -> None:
        self.folder = write_bundle(folder / "bundle")
        self.files = {path.name: path.read_bytes() for path in self.folder.iterdir()}
        self.manifest: dict[str, Any] = json.loads(self.files["manifest.json"])

    def reset(self) -> None:
        """Every file as it was."""
        for path in self.folder.iterdir():
            if path.name not in self.files:
                path.unlink()
        for name, content in self.files.items():
            self.write(name, content)

    def write(self, name: str, content: bytes) -> None:
        """One file, whatever the manifest says of it."""
        (self.folder / name).write_bytes(content)

    def replace(self, name: str, content: bytes) -> None:
        """One file, with hash and size in the manifest that fit it."""
        self.write(name, content)
        manifest = json.loads(self.files["manifest.json"])
        records = [*manifest["models"].values(), manifest["golden"]["file"], manifest["expected"]]
        for record in records:
            if record["name"] == name:
                record.update(sha256=sha256(content), bytes=len(content))
        self.write("manifest.json", json.dumps(manifest).encode())


def used(folder: Path, *, self_test: bool = True) -> str:
    """Load a bundle and do with it what a program does; the error that refuses it, or what it came to.

    self_test: compute the golden images too, several at once.
    """
    try:
        session = Session.load(folder, "onnxruntime", threads=1)
    except SessionError as error:
        return refused(error)
    with session:
        try:
            session.run(images(1))
            session.predict(PICTURE)
            if self_test:
                session.self_test()
        except SessionError as error:
            return f"loaded, then {refused(error)}"
    return "whole"


def refused(error: SessionError) -> str:
    """The name of a typed refusal; one for want of memory is none, since models are judged before."""
    text = str(error)
    assert text.strip()
    assert "alloc" not in text, text
    return type(error).__name__
