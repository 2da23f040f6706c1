"""Checkpoints of a stopped training, harmed: refused in words and left alone, or gone on from to the end."""

import json
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from saq_qat.errors import SaqError
from saq_qat.train.run import run_training
from saq_qat.train.stop import TrainingStoppedError
from tests.faults.training.conftest import QUANTIZED
from tests.faults.training.recipes import copied, everything_in, faulty_recipe, with_hashes
from tests.fuzz.mutate import ODD_VALUES, damaged_bytes, damaged_text, damaged_tree
from tests.fuzz.surface import Case, Surface
from tests.train.stopping import sigterm_at

__all__ = ["SURFACE"]


def _harmed(random: Random, name: str, content: bytes, others: list[bytes]) -> bytes:
    """Another content of one file: its data, its spelling, its bytes, or those of another file."""
    chance = random.random()
    if chance < 0.1:
        return random.choice(others)
    if chance < 0.3:
        return damaged_bytes(random, content)
    if name.endswith(".json"):
        tree = json.dumps(damaged_tree(random, json.loads(content)))
        text = tree if chance < 0.8 else damaged_text(random, content.decode())
        return text.encode(errors="surrogatepass")
    return _harmed_tensors(random, content)


def _harmed_tensors(random: Random, content: bytes) -> bytes:
    """safetensors with tensors exchanged, renamed, left out, or of another type or shape."""
    size = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    if random.random() < 0.5:
        one, other = random.choices(sorted(header), k=2)
        header[one], header[other] = header[other], header[one]
    else:
        header = damaged_tree(random, header, (*ODD_VALUES, "F32", "F64", "BF16", "I64", "BOOL", "U8"))
    text = json.dumps(header).encode(errors="surrogatepass")
    if random.random() < 0.3:
        data = damaged_bytes(random, data)
    return struct.pack("<Q", len(text)) + text + data


def _stopped(folder: Path, step: int, *overrides: str) -> Path:
    with pytest.raises(TrainingStoppedError):
        run_training(faulty_recipe(*overrides), folder, on_progress=sigterm_at(step))
    shutil.rmtree(folder / "checkpoints" / "last.previous", ignore_errors=True)
    return folder


@contextmanager
def _opened(folder: Path) -> Iterator[Case]:
    runs = {
        _stopped(folder / "float", 6): faulty_recipe(),
        _stopped(folder / "quantized", 7, *QUANTIZED): faulty_recipe(*QUANTIZED),
    }

    def case(random: Random) -> str:
        original = random.choice(list(runs))
        shutil.rmtree(folder / "run", ignore_errors=True)
        run = copied(original, folder / "run")
        checkpoint = run / "checkpoints" / "last"
        paths = sorted(checkpoint.iterdir())
        path = random.choice(paths)
        harmed = _harmed(random, path.name, path.read_bytes(), [each.read_bytes() for each in paths])
        path.write_bytes(harmed)
        if path.name != "sha256.json" and random.random() < 0.85:
            with_hashes(checkpoint)
        before = everything_in(run)
        try:
            run_training(runs[original], run, resume=True)
        except SaqError as error:
            assert str(error).strip()
            if type(error).__name__ != "DivergedError":
                assert everything_in(run) == before, "a refusal changed the run"
            return type(error).__name__
        return "gone on"

    yield case


SURFACE = Surface("checkpoints", _opened, seconds=30.0, mebibytes=768)
