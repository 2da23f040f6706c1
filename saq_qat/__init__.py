"""Sharpness-aware quantization, from a recipe to integers that are proved to be the trained ones.

::

    import saq_qat as sq

    run = sq.train("recipe.yaml")                       # as the command does
    bundle = sq.export(run)                             # written only if it is proved
    sq.verify(bundle)

    net = sq.quantize(model, images, weight_bits=4)     # or a network and a loop of your own
    step = sq.SAQ(net, optimizer, rho=0.3)
    loss = step(lambda: F.cross_entropy(net(images), labels))
    bundle = sq.export(net, (images, labels), folder="bundle")

Importing this package imports nothing: what a name needs, torch among it, is loaded when the name is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from saq_qat.version import __version__

if TYPE_CHECKING:
    from saq_qat.door.network import QuantizedNetwork, fold, lower, quantize
    from saq_qat.door.pipeline import Bundle, export, verify
    from saq_qat.door.training import train
    from saq_qat.optim.closure import SAQ

__all__ = [
    "SAQ",
    "Bundle",
    "QuantizedNetwork",
    "__version__",
    "export",
    "fold",
    "lower",
    "quantize",
    "train",
    "verify",
]

_ROOMS = {
    "SAQ": "saq_qat.optim.closure",
    "Bundle": "saq_qat.door.pipeline",
    "QuantizedNetwork": "saq_qat.door.network",
    "export": "saq_qat.door.pipeline",
    "fold": "saq_qat.door.network",
    "lower": "saq_qat.door.network",
    "quantize": "saq_qat.door.network",
    "verify": "saq_qat.door.pipeline",
}
"""Where each name lives. ``train`` is the room of that name, which can be called."""


def __getattr__(name: str) -> Any:
    if name == "train":
        return import_module("saq_qat.train")
    if name not in _ROOMS:
        raise AttributeError(f"module 'saq_qat' has no attribute {name!r}")
    return getattr(import_module(_ROOMS[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
