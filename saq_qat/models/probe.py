"""Whether a network takes the images of a recipe and gives its logits: tried on a blank image."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from saq_qat.errors import RecipeError

__all__ = ["CHANNELS", "check_takes_images"]

CHANNELS = 3
"""Of every image: red, green and blue."""

_SIZES = (32, 64, 96, 128, 160, 192, 224, 240, 256, 299, 384, 448, 512)


@torch.no_grad()
def check_takes_images(network: nn.Module, image_size: int, classes: int, name: str) -> None:
    """Run a copy of ``network`` on two black images, in evaluation and in training mode.

    The network, and the random generator, are left as they were.

    Args:
        image_size: ``data.image_size`` of the recipe.
        classes: number of logits the data asks for.
        name: ``model.name`` of the recipe.

    Raises:
        RecipeError: the network refuses images of that size, or gives anything but logits (N, classes).
    """
    probed = copy.deepcopy(network)
    for training in (False, True):
        mode = "training" if training else "evaluation"
        probed.train(training)
        try:
            found = _output(probed, image_size)
        except _RefusedError as refused:
            raise RecipeError(_refusal(probed, refused, image_size, name)) from refused.error
        if not isinstance(found, Tensor) or tuple(found.shape) != (2, classes):
            raise RecipeError(
                f"A network gives one tensor of logits (N, classes); {name} gives {_described(found)} in "
                f"{mode} for 2 images of {classes} classes. {_fix_of_output(found, classes)}"
            )


def _fix_of_output(found: object, classes: int) -> str:
    if isinstance(found, Tensor) and found.dim() == 2:
        return (
            f"Its head must have {classes} outputs, one for each class of the data: give the network such a "
            "head, or the data its number of classes."
        )
    return (
        "Switch other outputs off if the constructor can (model.arguments, as aux_logits: false), or wrap "
        "the network in a module that returns the logits alone."
    )


class _RefusedError(Exception):
    """The network raised ``error`` in the module ``where``."""

    def __init__(self, error: Exception, where: str) -> None:
        super().__init__()
        self.error, self.where = error, where


def _output(network: nn.Module, image_size: int) -> object:
    entered: list[str] = []
    with _noting(network, entered), torch.random.fork_rng(devices=[]):
        try:
            return network(torch.zeros(2, CHANNELS, image_size, image_size))
        # forward is the user's, and may refuse an image with anything.
        except Exception as error:
            raise _RefusedError(error, entered[-1] if entered else "") from error


@contextmanager
def _noting(network: nn.Module, entered: list[str]) -> Iterator[None]:
    """Keep in ``entered`` the paths of the modules whose forward has begun and not ended."""
    handles = []
    for path, module in network.named_modules():
        if path:
            handles.append(module.register_forward_pre_hook(lambda *_, at=path: entered.append(at)))
            handles.append(module.register_forward_hook(lambda *_: entered.pop() and None))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _refusal(network: nn.Module, refused: _RefusedError, image_size: int, name: str) -> str:
    kind = type(network.get_submodule(refused.where)).__name__
    where = f" in {refused.where} ({kind})" if refused.where else ""
    reason = str(refused.error).rstrip(".") or type(refused.error).__name__
    return (
        f"data.image_size must be a size that the network takes; {name} refuses images (N, {CHANNELS}, "
        f"{image_size}, {image_size}){where}: {reason}. {_fix(network, image_size)}"
    )


def _fix(network: nn.Module, image_size: int) -> str:
    """The nearest of the usual sizes that the network takes, the smaller of two."""
    for size in sorted(_SIZES, key=lambda size: abs(size - image_size)):
        try:
            _output(network, size)
        except _RefusedError:
            continue
        return (
            f"It takes data.image_size: {size}; some constructors take the size of images as an argument "
            "(model.arguments: img_size for Vision Transformers of timm, image_size for torchvision's)."
        )
    return (
        f"It takes none of {_SIZES[0]} to {_SIZES[-1]} either: it must take images of {CHANNELS} channels "
        "and any batch. Try it on torch.zeros(2, 3, 224, 224)."
    )


def _described(found: object) -> str:
    if isinstance(found, Tensor):
        return f"a tensor {tuple(found.shape)}"
    if isinstance(found, tuple | list):
        return f"{type(found).__name__} of {len(found)}"
    return type(found).__name__
