"""Mutants of the deploy view: files, integer reference and view agree, and are not what was trained."""

import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx, nn

from saq_qat.quant.deploy.integer_modules import IntegerLayer, Quantize
from tests.gate.edits import ViewEdit, add_to, buffer, flip_sign, times, zeroed
from tests.gate.harness import Mutant

__all__ = ["MUTANTS"]

View = fx.GraphModule


def layers(view: View) -> Iterator[tuple[str, IntegerLayer]]:
    return ((name, m) for name, m in view.named_modules() if isinstance(m, IntegerLayer))


def layer_of(view: View, path: str) -> IntegerLayer:
    layer = view.get_submodule(path)
    assert isinstance(layer, IntegerLayer)
    return layer


def each_layer(change: Callable[[IntegerLayer], Any]) -> ViewEdit:
    def edit(view: View) -> None:
        for _, layer in layers(view):
            change(layer)

    return edit


def one_layer(path: str, change: Callable[[IntegerLayer], Any]) -> ViewEdit:
    def edit(view: View) -> None:
        change(layer_of(view, path))

    return edit


def rescaled(path: str, factor: float) -> ViewEdit:
    """The scale of a layer's weights, and with it that of its biases, whose codes follow."""

    def edit(view: View) -> None:
        layer = layer_of(view, path)
        layer.weight_scale.mul_(factor)
        if layer.bias_scale is not None:
            layer.bias.copy_((layer.bias.double() / factor).round().int())
            layer.bias_scale.mul_(factor)

    return edit


def activation_rescaled(name: str, consumer: str, factor: float) -> ViewEdit:
    """The scale of an activation, everywhere it counts."""

    def edit(view: View) -> None:
        view.get_buffer(f"quantizers.{name}.scale").mul_(factor)
        layer = layer_of(view, consumer)
        if layer.bias_scale is not None:
            layer.bias_scale.mul_(factor)

    return edit


def exchanged(first: str, second: str, *names: str) -> ViewEdit:
    """Two layers with each other's buffers."""

    def edit(view: View) -> None:
        for name in names:
            a, b = view.get_buffer(f"{first}.{name}"), view.get_buffer(f"{second}.{name}")
            held = a.clone()
            a.copy_(b)
            b.copy_(held)

    return edit


def transposed(path: str) -> ViewEdit:
    def edit(view: View) -> None:
        weight = layer_of(view, path).weight
        weight.copy_(weight.transpose(0, 1).clone())

    return edit


def kernel_flipped(path: str) -> ViewEdit:
    return one_layer(path, lambda layer: layer.weight.copy_(layer.weight.flip(-1)))


def channel_negated(path: str, channel: int) -> ViewEdit:
    return one_layer(path, lambda layer: layer.weight[channel].neg_())


def channels_rolled(path: str) -> ViewEdit:
    def change(layer: IntegerLayer) -> None:
        for tensor in (layer.weight, layer.weight_scale, layer.bias, layer.bias_scale):
            if tensor is not None:
                tensor.copy_(tensor.roll(1, dims=0))

    return one_layer(path, change)


def one_scale_for_all_channels(path: str) -> ViewEdit:
    def change(layer: IntegerLayer) -> None:
        assert layer.bias_scale is not None
        layer.bias_scale.fill_(float(layer.bias_scale.mean()))
        layer.weight_scale.fill_(float(layer.weight_scale.mean()))

    return one_layer(path, change)


# ---- operations: these are exported again


def quantize(view: View, name: str) -> Quantize:
    module = view.get_submodule(f"quantizers.{name}")
    assert isinstance(module, Quantize)
    return module


def with_bound(name: str, *, lower: int = 0, upper: int = 0) -> ViewEdit:
    def edit(view: View) -> None:
        module = quantize(view, name)
        module.minimum += lower
        module.maximum += upper

    return edit


def setting(path: str, **values: Any) -> ViewEdit:
    def edit(view: View) -> None:
        for name, value in values.items():
            setattr(view.get_submodule(path), name, value)

    return edit


def nodes_of(view: View) -> dict[str, fx.Node]:
    return {node.name: node for node in view.graph.nodes}


def reads_scale_of(dequantize: str, other: str) -> ViewEdit:
    """A consumer multiplies codes by another quantizer's scale."""

    def edit(view: View) -> None:
        node = nodes_of(view)[dequantize]
        with view.graph.inserting_before(node):
            scale = view.graph.get_attr(f"quantizers.{other}.scale")
        node.args = (node.args[0], scale, node.args[2])

    return edit


def subtracted(name: str) -> ViewEdit:
    return lambda view: setattr(nodes_of(view)[name], "target", operator.sub)


def one_addend(name: str) -> ViewEdit:
    """A sum that reads its first addend twice."""

    def edit(view: View) -> None:
        node = nodes_of(view)[name]
        node.args = (node.args[0], node.args[0])

    return edit


def argument(name: str, index: int, value: Any) -> ViewEdit:
    def edit(view: View) -> None:
        node = nodes_of(view)[name]
        node.args = (*node.args[:index], value, *node.args[index + 1 :])

    return edit


def replaced(path: str, module: nn.Module) -> ViewEdit:
    return lambda view: view.set_submodule(path, module)


def strided_later(view: View) -> None:
    """A convolution of stride 2 that starts at the second pixel."""
    node = nodes_of(view)["shortcut_0"]
    with view.graph.inserting_before(node):
        rolled = view.graph.call_function(torch.roll, (node.args[0], -1, -1))
    node.args = (rolled,)


def skipped(name: str) -> ViewEdit:
    """A node whose readers read its input."""

    def edit(view: View) -> None:
        node = nodes_of(view)[name]
        node.replace_all_uses_with(node.all_input_nodes[0])
        view.graph.erase_node(node)

    return edit


def reads(name: str, other: str) -> ViewEdit:
    """A node with another one as its first input."""

    def edit(view: View) -> None:
        nodes = nodes_of(view)
        nodes[name].args = (nodes[other], *nodes[name].args[1:])

    return edit


_ALL = ("weight", "weight_scale", "bias", "bias_scale")
_NUMBERS: tuple[tuple[str, str, ViewEdit, str], ...] = (
    ("all biases zeroed", "cnn", each_layer(lambda layer: layer.bias.zero_()), r"stem\.0|stem_2"),
    ("all codes negated", "cnn", each_layer(lambda layer: layer.weight.neg_()), r"stem\.0|stem_2"),
    ("codes of the last layer negated", "cnn", buffer("head.fc.weight", flip_sign), r"head\.fc|logits"),
    ("codes of one channel negated", "cnn", channel_negated("branch.1", 3), r"branch\.1|branch_2"),
    ("one bias off by one unit", "cnn", buffer("mix.0.bias", add_to((5,), 1)), r"mix\.0|mix_2"),
    (
        "one bias of the last layer off by one unit",
        "cnn",
        buffer("head.fc.bias", add_to((9,), -1)),
        r"head\.fc|logits",
    ),
    ("biases of one layer zeroed", "cnn", buffer("depthwise.0.bias", zeroed), r"depthwise"),
    ("bias of another layer", "cnn", exchanged("shortcut.0", "branch.1", "bias"), r"shortcut|branch"),
    ("one code off by one", "cnn", buffer("stem.0.weight", add_to((7, 2, 2, 2), 1)), r"stem\.0|stem_2"),
    (
        "one code of a grouped convolution off by a step",
        "cnn",
        buffer("branch.1.weight", add_to((11, 5, 0, 1), 16)),
        r"branch\.1|branch_2",
    ),
    ("scale of weights times 1.02", "cnn", rescaled("branch.0.0", 1.02), r"branch\.0\.0|branch_0_2"),
    ("scale of weights times 1.0001", "cnn", rescaled("branch.0.0", 1.0001), r"branch\.0\.0|branch_0_2"),
    ("one scale for all channels", "cnn", one_scale_for_all_channels("mix.0"), r"mix"),
    (
        "scale of an activation times 1.02",
        "cnn",
        activation_rescaled("branch_0_2", "branch.1", 1.02),
        r"branch",
    ),
    (
        "scale of an activation times 1.0001",
        "cnn",
        activation_rescaled("branch_0_2", "branch.1", 1.0001),
        r"branch",
    ),
    ("scale of the image times 1.0001", "cnn", activation_rescaled("image", "stem.0", 1.0001), r"image|stem"),
    (
        "scale of the average times 1.0001",
        "cnn",
        activation_rescaled("head_pool", "head.fc", 1.0001),
        r"head",
    ),
    (
        "scale of one addend times 1.02",
        "cnn",
        buffer("quantizers.shortcut_1.scale", times(1.02)),
        r"shortcut_1|relu",
    ),
    ("weight transposed", "cnn", transposed("mix.0"), r"mix"),
    ("kernel mirrored", "cnn", kernel_flipped("depthwise.0"), r"depthwise"),
    ("output channels moved by one", "cnn", channels_rolled("mix.0"), r"mix"),
    ("classes moved by one", "cnn", channels_rolled("head.fc"), r"head\.fc|logits"),
    (
        "all biases zeroed, transformer",
        "vit",
        each_layer(lambda layer: layer.bias.zero_()),
        r"patches|\bq\b|fc1",
    ),
    ("codes of one layer negated, transformer", "vit", buffer("proj.weight", flip_sign), r"proj"),
    ("one bias off by one unit, transformer", "vit", buffer("fc1.bias", add_to((40,), 1)), r"fc1|act"),
    (
        "one code off by one, transformer",
        "vit",
        buffer("patches.weight", add_to((0, 0, 0, 0), 1)),
        r"patches",
    ),
    ("scale of weights times 1.0001, transformer", "vit", rescaled("v", 1.0001), r"\bv\b"),
    (
        "scale of an activation times 1.0001, transformer",
        "vit",
        buffer("quantizers.softmax.scale", times(1.0001)),
        r"softmax",
    ),
    ("scale of keys times 1.02", "vit", buffer("quantizers.k.scale", times(1.02)), r"\bk\b"),
    ("queries and keys swapped", "vit", exchanged("q", "k", *_ALL), r"\bq\b|\bk\b"),
    ("keys and values swapped", "vit", exchanged("k", "v", *_ALL), r"\bk\b|\bv\b"),
    ("weight transposed, transformer", "vit", transposed("proj"), r"proj"),
    ("weight of a LayerNorm", "vit", buffer("norm2.weight", times(1.001)), r"norm2"),
    ("bias of a LayerNorm", "vit", buffer("norm3.bias", zeroed), r"norm3|getitem_5"),
    (
        "rows of positions swapped",
        "vit",
        buffer("position", lambda v: v[:, [1, 0, *range(2, 17)]]),
        r"position|norm1",
    ),
    ("class token zeroed", "vit", buffer("class_token", zeroed), r"class_token|norm1"),
    ("value of an offset", "vit", buffer("quantizers_act_offset", times(1.02)), r"act"),
    ("sign of a subtracted offset", "vit", buffer("quantizers_act_offset", flip_sign), r"act"),
    (
        "value of an offset behind padding",
        "offsets",
        buffer("quantizers_stem_2_4bit_0_offset", times(1.02)),
        r"stem_2_4bit_0",
    ),
    ("one offset for another", "offsets", buffer("quantizers_add_4bit_offset", times(-1.0)), r"add_4bit"),
    (
        "one bias behind an offset off by one unit",
        "offsets",
        buffer("reduce.0.bias", add_to((0,), 1)),
        r"reduce",
    ),
    (
        "one code behind an offset off by a step",
        "offsets",
        buffer("expand.0.weight", add_to((15, 7, 0, 0), 8)),
        r"expand",
    ),
)

_OPERATIONS: tuple[tuple[str, str, ViewEdit, str], ...] = (
    ("an activation's maximum off by one", "cnn", with_bound("branch_0_2", upper=-1), r"branch_0_2"),
    ("an activation's minimum off by one", "cnn", with_bound("shortcut_1", lower=40), r"shortcut_1"),
    ("dilation", "cnn", setting("branch.1", dilation=(1, 1), padding=(1, 1)), r"branch\.1|branch_2"),
    ("padding", "cnn", setting("depthwise.0", padding=(2, 2), dilation=(2, 2)), r"depthwise"),
    ("stride", "cnn", strided_later, r"shortcut"),
    ("max pool for average pool", "cnn", replaced("pool", nn.AvgPool2d(2)), r"branch|shortcut"),
    (
        "a consumer reads another scale",
        "cnn",
        reads_scale_of("dequantize_default_7", "relu"),
        r"depthwise_2|mix",
    ),
    ("addend subtracted", "cnn", subtracted("add"), r"add|relu"),
    ("one addend twice", "cnn", one_addend("add"), r"add|relu"),
    ("softmax over the wrong axis", "vit", argument("softmax", 1, -2), r"softmax"),
    (
        "another token for the class token",
        "vit",
        argument("getitem_5", 1, (slice(None), 1)),
        r"getitem_5|norm3",
    ),
    ("GELU by its tanh formula", "vit", replaced("act", nn.GELU("tanh")), r"act"),
    ("residual sum without its shortcut", "vit", skipped("norm1"), r"norm1"),
    ("epsilon of a LayerNorm", "vit", setting("norm1", eps=0.01), r"norm1"),
    ("Hardswish for ReLU", "offsets", replaced("stem.2", nn.ReLU()), r"stem"),
)

MUTANTS = (
    *(Mutant(name, network, "view", change, named) for name, network, change, named in _NUMBERS),
    *(Mutant(name, network, "graph", change, named) for name, network, change, named in _OPERATIONS),
)
