"""From the recipe's `model` section to a float network."""

import contextlib
import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from saq_qat.errors import RecipeError, SaqError
from saq_qat.models.attention import separate_attention
from saq_qat.models.pretrained import load_pretrained
from saq_qat.models.resnet_cifar import preresnet20, resnet20
from saq_qat.models.resnet_cifar_option_a import (
    resnet20_option_a,
    resnet32_option_a,
    resnet44_option_a,
    resnet56_option_a,
)
from saq_qat.models.vit import vit_b16, vit_b32, vit_micro, vit_s16, vit_s32
from saq_qat.recipe.schema import Model

__all__ = ["build_model", "plain_network"]


def _of_torchvision(name: str) -> Callable[..., nn.Module]:
    def construct(**arguments: Any) -> nn.Module:
        from torchvision import models  # with torch's compiler: a second, which other networks need not wait

        network: nn.Module = getattr(models, name)(**arguments)
        return network

    return construct


_BUILT_IN: dict[str, Callable[..., nn.Module]] = {
    "resnet20": resnet20,
    "preresnet20": preresnet20,
    "resnet20_option_a": resnet20_option_a,
    "resnet32_option_a": resnet32_option_a,
    "resnet44_option_a": resnet44_option_a,
    "resnet56_option_a": resnet56_option_a,
    "resnet18": _of_torchvision("resnet18"),
    "resnet34": _of_torchvision("resnet34"),
    "resnet50": _of_torchvision("resnet50"),
    "mobilenet_v2": _of_torchvision("mobilenet_v2"),
    "vit_s32": vit_s32,
    "vit_s16": vit_s16,
    "vit_b32": vit_b32,
    "vit_b16": vit_b16,
    "vit_micro": vit_micro,
}
_DOWNLOADING_ARGUMENTS = ("weights", "pretrained")


def build_model(model: Model, num_classes: int) -> nn.Module:
    """The float network of a recipe, in training mode, on the CPU.

    Weights are drawn from torch's global generator, then replaced by those of `model.pretrained` if given. In
    a network of your own, fused self-attention is separated where its structure allows it
    (`separate_attention`).

    Raises RecipeError if it cannot be built, SetupError if it needs a package that is not installed,
    ArtifactError if the pretrained weights cannot be loaded.
    """
    if ":" in model.name:
        with _working_folder_importable():
            network = _construct(model, _import_constructor(model.name), num_classes)
        network = plain_network(network)
    else:
        network = _plain(_construct(model, _built_in(model), num_classes))
    if model.pretrained is not None:
        load_pretrained(network, Path(model.pretrained), strict=model.pretrained_strict)
    return network


def plain_network(network: nn.Module) -> nn.Module:
    """A network of your own as torch.fx can see it, in float32; changed in place, or what it wraps.

    Raises:
        RecipeError: part of it is a scripted module.
    """
    separate_attention(network)
    return _plain(network)


def _plain(network: nn.Module) -> nn.Module:
    """The network itself, in float32, without what compiles it or spreads it over devices."""
    for path, module in list(network.named_modules()):
        if isinstance(module, torch.jit.ScriptModule):
            raise RecipeError(
                f"model: {path or 'the network'} is a scripted module, whose operations torch.fx cannot see. "
                "Return it without torch.jit.script."
            )
        inner = _wrapped(module)
        if inner is not None and path:
            network.set_submodule(path, inner)
    while (inner := _wrapped(network)) is not None:
        network = inner
    return network.float()


def _wrapped(module: nn.Module) -> nn.Module | None:
    """What a compiled or a parallel module wraps."""
    names = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}
    found = getattr(module, names.get(type(module).__name__, ""), None)
    return found if isinstance(found, nn.Module) else None


def _built_in(model: Model) -> Callable[..., nn.Module]:
    if model.name not in _BUILT_IN:
        close = difflib.get_close_matches(model.name, _BUILT_IN, n=1)
        raise RecipeError(
            f"model.name must be a built-in network or 'package.module:callable'; got '{model.name}'."
            + (f" Did you mean '{close[0]}'?" if close else "")
            + f" Built in: {', '.join(_BUILT_IN)}."
        )
    for name in _DOWNLOADING_ARGUMENTS:
        if name in model.arguments:
            raise RecipeError(
                f"model.arguments.{name} would download weights, and training never uses the network. "
                "Save the weights to a file and give its path as model.pretrained."
            )
    return _BUILT_IN[model.name]


@contextlib.contextmanager
def _working_folder_importable() -> Iterator[None]:
    """Let `import` see the current folder, as `python -m` does, while a user's network is built."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(folder)


def _import_constructor(name: str) -> Callable[..., Any]:
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    # The module is the user's: whatever its import raises is a fault of the recipe or of that file.
    except Exception as error:
        raise RecipeError(
            f"model.name: '{module_name}' cannot be imported: {type(error).__name__}: {error}. "
            f"It must be installed, or lie under the current folder ({Path.cwd()})."
        ) from error
    constructor: Any = module
    for part in attribute.split("."):
        constructor = getattr(constructor, part, None)
    if not callable(constructor):
        public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        close = difflib.get_close_matches(attribute, public, n=1)
        raise RecipeError(
            f"model.name must name a callable; '{attribute}' is none of '{module_name}' "
            f"({getattr(module, '__file__', 'built in')})."
            + (f" Did you mean '{module_name}:{close[0]}'?" if close else "")
        )
    return constructor  # type: ignore[no-any-return]  # a user's own function


def _construct(model: Model, constructor: Callable[..., Any], num_classes: int) -> nn.Module:
    if "num_classes" in model.arguments:
        raise RecipeError(
            "model.arguments.num_classes is set by the data (its number of classes, "
            f"here {num_classes}); remove it from model.arguments."
        )
    classes = {"num_classes": num_classes} if _takes_classes(constructor) else {}
    arguments = {**classes, **model.arguments}
    call = f"{model.name}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})"
    try:
        network = constructor(**arguments)
    except SaqError:
        raise
    # A constructor may raise anything; the reader of the message needs the call that did.
    except Exception as error:
        raise RecipeError(
            f"model: {call} raised {type(error).__name__}: {error}. "
            "It is called with `num_classes`, if it has such a parameter, and every key of model.arguments."
        ) from error
    if not isinstance(network, nn.Module):
        raise RecipeError(f"model: {call} must return a torch.nn.Module; got {type(network).__name__}.")
    return network


def _takes_classes(constructor: Callable[..., Any]) -> bool:
    """Whether it has a parameter of that name; one that does not has its own number of classes."""
    try:
        parameters = inspect.signature(constructor).parameters
    # Builtins and extension types may have none to be read.
    except (TypeError, ValueError):
        return True
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    return takes_any or "num_classes" in parameters
