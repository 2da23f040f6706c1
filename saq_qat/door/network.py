"""A network of the caller's own, quantized: trained in any loop, lowered, exported."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import is_lazy

from saq_qat.data.given import example_batches
from saq_qat.door.arguments import as_list
from saq_qat.errors import DataError, RecipeError
from saq_qat.models.build import plain_network
from saq_qat.quant import network as quantization
from saq_qat.quant.deploy.view import deploy_view, fold_batch_norm
from saq_qat.quant.numerics.layers import quant_layers
from saq_qat.quant.plan.plan import Plan
from saq_qat.quant.trace.sizes import ImageShape
from saq_qat.recipe.load import as_tuples, parse_section
from saq_qat.recipe.schema import Deploy, Quant, Target
from saq_qat.train.checkpoint import Form

__all__ = ["QuantizedNetwork", "fold", "lower", "quantize"]

_BITS = 4
Kind = Literal["saq", "symmetric", "lsq"]
_Section = TypeVar("_Section", Quant, Deploy)


class QuantizedNetwork(nn.Module):
    """A network with its quantizers: images float32 (N, C, S, S) to logits (N, classes), in fake-quant.

    An ordinary module, to be trained, moved, copied and saved by its ``state_dict``. ``quantize`` makes it.

    Attributes:
        network: the traced network, whose submodules have the names of the original's.
        plan: which tensor gets which quantizer.
        quant, deploy: the settings it was made with, as sections of a recipe.
        image: (C, S, S) of its images.
        classes: number of its logits.
        origin: the class it was made of, as ``module:name``.
        form: ``deploy`` once BatchNorm is folded (``fold``).
    """

    def __init__(
        self,
        network: fx.GraphModule,
        plan: Plan,
        quant: Quant,
        deploy: Deploy,
        *,
        image: ImageShape,
        classes: int,
        origin: str,
        form: Form = "quantized",
    ) -> None:
        super().__init__()
        self.network, self.plan, self.quant, self.deploy = network, plan, quant, deploy
        self.image, self.classes, self.origin, self.form = image, classes, origin, form

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits


def quantize(
    model: nn.Module,
    example: Tensor | Iterable[Tensor | Sequence[Tensor]],
    *,
    weight_bits: int | None = None,
    activation_bits: int | None = None,
    kind: Kind | None = None,
    targets: Target | Sequence[Target] | None = None,
    quant: Quant | Mapping[str, Any] | None = None,
    deploy: Deploy | Mapping[str, Any] | None = None,
) -> QuantizedNetwork:
    """A quantized copy of a float network, its clip levels and BatchNorm statistics placed by sample images.

    It may be exported as it is, which is quantization without training, or trained first: with ``SAQ``, or
    like any other network.

    Args:
        model: a classifier that torch.fx can trace (saq_qat/models/README.md); left as it is. The copy has
            its weights, its device and its mode.
        example: training images as the network gets them, float32 (N, C, S, S), or several such batches, as
            they are or with labels, which are left out. The more they are like those that are trained on,
            augmentation included, the better.
        weight_bits, activation_bits: 2 to 8; 4, and as ``weight_bits``, if None. First and last layers and
            residual branches have 8.
        kind: of all quantizers; ``saq`` if None.
        targets: where it will run, which decides where quantizers stand; ONNX Runtime alone if None.
        quant, deploy: the same and all else, as sections of a recipe in place of the settings above: dicts,
            ``{"weight": {"bits": 3}, "activation": {"bits": 4}}``, or those of ``saq_qat.recipe.schema``.

    Raises:
        RecipeError: a setting breaks a rule, or is given twice; no float network, or one without logits.
        LegalityError: the network cannot be traced, or a target cannot run it quantized so.
        DataError: the images are no images, or not those of the network.
    """
    _check_float(model)
    batches = example_batches(example)
    quant = _quant(quant, weight_bits, activation_bits, kind)
    deploy = _deploy(deploy, targets)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    network = plain_network(copy.deepcopy(model).cpu())
    channels, side, _ = batches[0].shape[1:]
    classes = _classes(network, batches[0][:2].cpu())
    quantized, plan = quantization.quantize(
        network, quant, deploy.targets, cpu=deploy.onnxruntime.cpu, image=(channels, side, side)
    )
    quantized = quantized.to(device)
    quantization.calibrate(quantized, (batch.to(device) for batch in batches))
    origin = f"{type(model).__module__}:{type(model).__qualname__}"
    made = QuantizedNetwork(
        quantized, plan, quant, deploy, image=(channels, side, side), classes=classes, origin=origin
    )
    return made.train(model.training)


def fold(network: QuantizedNetwork) -> QuantizedNetwork:
    """A copy with BatchNorm folded and biases rounded as the integers will be, to end a training with.

    What a deploy stage of a recipe trains: a short training at a low rate learns rounded biases. It needs an
    optimizer of its own.

    Raises:
        RecipeError: it is folded already, or not quantized.
    """
    _check_quantized(network, "fold")
    if network.form == "deploy":
        raise RecipeError("BatchNorm is folded once; this network went through fold already.")
    folded = copy.deepcopy(network)
    fold_batch_norm(folded.network, refine_bias=network.deploy.refine_bias)
    folded.form = "deploy"
    return folded


def lower(network: QuantizedNetwork) -> fx.GraphModule:
    """The deploy view: a copy on the CPU that computes in torch with the integers that export writes.

    Float32 images (N, C, S, S) to logits; buffers hold int8 weight codes and int32 bias codes.
    ``.double()`` makes it the float64 reference.

    Raises:
        ArtifactError: an integer does not fit its type.
        RecipeError: it is not quantized.
    """
    _check_quantized(network, "lower")
    return deploy_view(copy.deepcopy(network.network).cpu().eval(), network.deploy)


def _check_float(model: object) -> None:
    if not isinstance(model, nn.Module):
        made = " Make one of it: quantize(Network(), images)." if isinstance(model, type) else ""
        raise RecipeError(f"quantize takes a network, a torch.nn.Module; got {_named(model)}.{made}")
    tensors = chain(model.named_parameters(), model.named_buffers())
    empty = next((name for name, tensor in tensors if is_lazy(tensor) or tensor.is_meta), None)
    if empty is not None:
        raise RecipeError(
            f"quantize takes a network that holds its numbers; {empty} has none yet (a lazy module, or the "
            "device meta). Load its weights first."
        )
    if quant_layers(model):
        raise RecipeError(
            "A network is quantized once, and this one has quantizers already. Train it on, or quantize the "
            "float network anew with other settings."
        )


def _check_quantized(network: object, function: str) -> None:
    if not isinstance(network, QuantizedNetwork):
        raise RecipeError(
            f"{function} takes a quantized network; got {_named(network)}. Quantize it first: "
            f"{function}(sq.quantize(model, images))."
        )


def _named(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def _quant(
    quant: Quant | Mapping[str, Any] | None,
    weight_bits: int | None,
    activation_bits: int | None,
    kind: Kind | None,
) -> Quant:
    if quant is not None:
        _given_once("quant", weight_bits=weight_bits, activation_bits=activation_bits, kind=kind)
        return _section(Quant, quant, "quant", "{'weight': {'bits': 3}, 'activation': {'bits': 4}}")
    bits = _BITS if weight_bits is None else weight_bits
    of_activation = bits if activation_bits is None else activation_bits
    named = {"kind": "saq" if kind is None else kind}
    settings = {"weight": {**named, "bits": bits}, "activation": {**named, "bits": of_activation}}
    return parse_section(Quant, settings, "quantize")


def _deploy(deploy: Deploy | Mapping[str, Any] | None, targets: Target | Sequence[Target] | None) -> Deploy:
    if deploy is not None:
        _given_once("deploy", targets=targets)
        return _section(Deploy, deploy, "deploy", "{'targets': ['onnxruntime']}")
    if targets is None:
        return Deploy()
    listed = (targets,) if isinstance(targets, str) else as_list(targets, len(get_args(Target)))
    if listed == ():
        raise RecipeError("quantize: targets must name at least one, got none. Leave it out for onnxruntime.")
    return parse_section(Deploy, {"targets": listed}, "quantize")


def _section(section: type[_Section], given: object, name: str, example: str) -> _Section:
    """A section of a recipe as it is, or of a dict as a recipe has it."""
    if isinstance(given, section):
        return given
    if not isinstance(given, Mapping):
        raise RecipeError(
            f"quantize: {name} must be a section of a recipe, a dict such as {example} or saq_qat.recipe."
            f"schema.{section.__name__}; got {_named(given)}."
        )
    return parse_section(section, as_tuples(dict(given)), f"quantize: {name}")


def _given_once(section: str, **settings: object) -> None:
    twice = [name for name, value in settings.items() if value is not None]
    if twice:
        raise RecipeError(
            f"quantize takes {', '.join(twice)}, or the section {section} that says the same; got both."
        )


@torch.no_grad()
def _classes(network: nn.Module, images: Tensor) -> int:
    """How many logits it gives, tried in evaluation on a copy."""
    try:
        logits = copy.deepcopy(network).eval()(images)
    # The network is the user's and may raise anything; the reader of the message needs the shape.
    except Exception as error:  # of a forward that is not ours
        raise DataError(
            f"The network must take images as they are given; of {tuple(images.shape)} its forward raised "
            f"{type(error).__name__}: {error}. Give images of the channels and the size that it wants."
        ) from error
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(images):
        found = f"a tensor {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise RecipeError(
            f"A network gives one tensor of logits (N, classes); this one gives {found} for {len(images)} "
            "images. Wrap it in a module that returns the logits alone."
        )
    return logits.shape[1]
