"""model.onnx of a bundle: bytes and messages harmed, with hashes that fit, loaded and run by ONNX Runtime."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from tests.faults.load.bombs import BOMBS, HARMLESS
from tests.fuzz.bundles import SmallBundle, used
from tests.fuzz.mutate import damaged_bytes
from tests.fuzz.onnx_edits import edited_model
from tests.fuzz.surface import Case, Surface
from tests.runtime.networks import float_network, quantized_network

__all__ = ["SURFACE", "harmed_model"]

_WHOLE = (quantized_network, float_network, *HARMLESS.values())
_BOMBS = tuple(BOMBS.values())


def harmed_model(random: Random) -> bytes:
    """A small model, or one that asks for gigabytes, after edits or damage of its bytes."""
    model = random.choice(_WHOLE if random.random() < 0.7 else _BOMBS)()
    if random.random() < 0.25:
        return damaged_bytes(random, model.SerializeToString())
    content: bytes = edited_model(random, model).SerializeToString()
    return damaged_bytes(random, content) if random.random() < 0.1 else content


@contextmanager
def _opened(folder: Path) -> Iterator[Case]:
    bundle = SmallBundle(folder)
    used(bundle.folder)  # what the engine takes once is not counted

    def case(random: Random) -> str:
        bundle.replace("model.onnx", harmed_model(random))
        return used(bundle.folder, self_test=False)

    yield case


SURFACE = Surface("models", _opened, mebibytes=1280)
