"""golden.npz and expected.csv of a bundle, harmed, with hashes in the manifest that fit."""

import io
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saq_qat_runtime.bundle.expected import read_expected
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.errors import SessionError
from saq_qat_runtime.promises import read_golden_codes
from tests.fuzz.bundles import SmallBundle, used
from tests.fuzz.mutate import damaged_bytes, damaged_text
from tests.fuzz.surface import Case, Surface
from tests.runtime.networks import images

__all__ = ["SURFACE"]

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
_NAMES = ("inputs.npy", "logits.npy", "x1_codes.npy", "inputs", "../inputs.npy", "x/y.npy", "é.npy")
_ROWS = (
    "", ",", ",,", '"', '"a\nb",0,0', "../x,0,0", "/x,0,0", "x,-1,0", "x,0,1e3", "x,9999999999999,0",
    "0.png,0,0", "x\0,0,0", "x,٣,0", "x,0,0,0", "image,label,prediction", "x" * 200_000 + ",0,0",
)  # fmt: skip  # one value a line is a page


def _array(random: Random) -> NDArray[Any]:
    shape = random.choice(((4, 3, 8, 8), (4, 5), (0, 3, 8, 8), (), (1,), (4, 5, 1), (2**20,)))
    kind = random.choice(("f4", "f8", ">f4", "i1", "u1", "O", "U3", "V4", "c8", "?", "M8[s]"))
    values: NDArray[Any] = np.zeros(shape, kind)
    if kind == "f4" and values.size:
        values.flat[0] = random.choice((np.nan, np.inf, 1e38, 1.0))
    return values


def _member(random: Random) -> bytes:
    stream = io.BytesIO()
    if random.random() < 0.5:
        np.save(stream, images(4) if random.random() < 0.5 else _array(random), allow_pickle=True)
    else:
        header = {
            "descr": random.choice(("<f4", "|O", "<f4, <i2", [("a", "<f4")], "x", None, 3)),
            "fortran_order": random.choice((False, True, 0, "x")),
            "shape": random.choice(((4, 3, 8, 8), (2**40,), (-1,), (4, 2**62, 4), ("x",), 3, None, (True,))),
        }
        text = repr(header).encode() + random.choice((b"\n", b"", b"(((", b" " * 60000))
        stream.write(
            b"\x93NUMPY" + bytes([random.choice((1, 2, 3, 9)), 0]) + len(text).to_bytes(2, "little") + text
        )
    content = stream.getvalue()
    return damaged_bytes(random, content) if random.random() < 0.4 else content


def _archive(random: Random, original: bytes) -> bytes:
    if random.random() < 0.4:
        return damaged_bytes(random, original)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", random.choice(_METHODS)) as archive:
        for name in {*random.sample(_NAMES, 2), "inputs.npy", "logits.npy"}:
            archive.writestr(name, _member(random))
    content = stream.getvalue()
    return damaged_bytes(random, content) if random.random() < 0.3 else content


def _table(random: Random, original: bytes) -> bytes:
    lines = original.decode().splitlines()
    for _ in range(random.randrange(3)):
        lines.insert(random.randrange(len(lines) + 1), random.choice(_ROWS))
    text = "\n".join(lines) + "\n" * random.randrange(2)
    content = damaged_text(random, text) if random.random() < 0.3 else text
    return damaged_bytes(random, content.encode()) if random.random() < 0.3 else content.encode()


@contextmanager
def _opened(folder: Path) -> Iterator[Case]:
    bundle = SmallBundle(folder)

    def case(random: Random) -> str:
        bundle.reset()
        name = random.choice(("golden.npz", "expected.csv"))
        harm = _archive if name == "golden.npz" else _table
        bundle.replace(name, harm(random, bundle.files[name]))
        outcome = used(bundle.folder)
        manifest = Manifest.load(bundle.folder)
        for read in (read_golden_codes, read_expected):
            try:
                read(bundle.folder, manifest)
            except SessionError as error:
                assert str(error).strip()
        return outcome

    yield case


SURFACE = Surface("golden", _opened, mebibytes=640)
