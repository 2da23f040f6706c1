"""Files of weights: safetensors and what torch.save wrote, harmed; and pickles that would run something."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import torch
from safetensors.torch import save
from torch import nn

from saq_qat.errors import ArtifactError
from saq_qat.models.pretrained import load_pretrained
from tests.fuzz.mutate import damaged_bytes, damaged_text, damaged_tree
from tests.fuzz.surface import Case, Surface
from tests.train.small_network import SmallNetwork

__all__ = ["SURFACE"]


class _Opens:
    """What a pickle would call; a file that it makes shows that it did."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.path), "w")


def _harmed_header(random: Random, content: bytes) -> bytes:
    """safetensors with another header: names, types, shapes and offsets."""
    size = struct.unpack("<Q", content[:8])[0]
    text = json.dumps(damaged_tree(random, json.loads(content[8 : 8 + size])))
    text = damaged_text(random, text) if random.random() < 0.1 else text
    header = text.encode(errors="surrogatepass")
    claimed = len(header) if random.random() < 0.9 else random.choice((0, 2**63, len(header) - 1, 10**9))
    return struct.pack("<Q", claimed) + header + content[8 + size :]


def _harmed_zip(random: Random, content: bytes) -> bytes:
    """An archive of torch.save with one member harmed, renamed or left out, and check sums that fit."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w") as new:
        chosen = random.choice(old.namelist())
        for name in old.namelist():
            member = old.read(name)
            if name == chosen and random.random() < 0.15:
                continue
            new.writestr(name, damaged_bytes(random, member) if name == chosen else member)
    return stream.getvalue()


def _saved(value: object, *, as_zip: bool = True) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=as_zip)
    return stream.getvalue()


def _opens(random: Random, state: dict[str, torch.Tensor], made: Path) -> bytes:
    harmful = {**state, "x": _Opens(made)}
    return random.choice((_saved(harmful), _saved(harmful, as_zip=False), pickle.dumps(harmful)))


@contextmanager
def _opened(folder: Path) -> Iterator[Case]:
    torch.manual_seed(0)
    network: nn.Module = SmallNetwork(10)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    whole = {
        ".safetensors": save(state),
        ".pth": _saved(state),
        ".pt": _saved({"model": state}, as_zip=False),
    }
    made = folder / "made"

    def case(random: Random) -> str:
        suffix = random.choice(list(whole))
        content = whole[suffix]
        if suffix == ".safetensors" and random.random() < 0.7:
            content = _harmed_header(random, content)
        elif suffix == ".pth" and random.random() < 0.6:
            content = _harmed_zip(random, content)
        else:
            content = damaged_bytes(random, content)
        if suffix != ".safetensors" and random.random() < 0.05:
            content = _opens(random, state, made)
        path = folder / f"input{suffix}"
        path.write_bytes(content)
        before = {name: value.clone() for name, value in network.state_dict().items()}
        try:
            load_pretrained(network, path, strict=random.random() < 0.5)
        except ArtifactError as error:
            assert str(error).strip()
            assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
            return "refused"
        finally:
            assert not made.exists(), "a pickle was run"
        assert all(bool(value.isfinite().all()) for value in network.state_dict().values())
        network.load_state_dict(state)
        return "loaded"

    yield case


SURFACE = Surface("pretrained", _opened, mebibytes=512)
