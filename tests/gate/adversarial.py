"""Mutants that nobody asked for: small, local, and chosen to look like something that is allowed."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, fx, nn

from saq_qat.quant.deploy import fold, lowering
from saq_qat.quant.deploy.fold import FoldedLayer
from saq_qat.quant.deploy.ops import GLOBAL_AVERAGE_POOL
from tests.gate import networks
from tests.gate.edits import (
    Array,
    Edit,
    ViewEdit,
    attribute,
    bypassed,
    constant,
    node_of,
    operation,
    own_constant,
    read_instead,
    swapped,
    times,
)
from tests.gate.files import next_float
from tests.gate.harness import Mutant
from tests.gate.views import argument, layer_of, nodes_of

__all__ = ["MUTANTS"]

Patch = pytest.MonkeyPatch


# ---- lowering


def average_of_one_pixel_less(view: fx.GraphModule) -> None:
    """The global average divides by 63 of 64 pixels, by a factor behind it."""
    (node,) = (n for n in view.graph.nodes if n.target is GLOBAL_AVERAGE_POOL)
    with view.graph.inserting_after(node):
        scaled = view.graph.call_function(torch.mul, (node, 64 / 63))
    node.replace_all_uses_with(scaled, delete_user_cb=lambda user: user is not scaled)


def pooled_scale(view: fx.GraphModule) -> None:
    """Pooled codes keep their numbers, and their readers get another scale."""
    view.get_buffer("quantizers.pool.scale").mul_(1.0001)


def addends_exchange_scales(view: fx.GraphModule) -> None:
    one, other = (view.get_buffer(f"quantizers.{name}.scale") for name in ("branch_2", "shortcut_1"))
    held = one.clone()
    one.copy_(other)
    other.copy_(held)


def offset_read_back_twice(view: fx.GraphModule) -> None:
    """Codes with an offset are made of values that have lost it twice."""
    nodes = nodes_of(view)
    sub = nodes["sub_1"]
    with view.graph.inserting_after(sub):
        again = view.graph.call_function(torch.sub, (sub, sub.args[1]))
    sub.replace_all_uses_with(again, delete_user_cb=lambda user: user is not again)


def channel_is_its_bias(path: str) -> ViewEdit:
    """One channel stored as a constant, as those are whose bias is too large to be an integer."""

    def edit(view: fx.GraphModule) -> None:
        layer = layer_of(view, path)
        assert layer.bias_scale is not None
        layer.weight[2].zero_()

    return edit


def refinement_and_scale_of_one_channel(view: fx.GraphModule) -> None:
    """Half the codes at twice the scale: the same products, and a bias on a coarser grid."""
    layer = layer_of(view, "mix.0")
    assert layer.bias_scale is not None
    layer.weight[0] //= 2
    layer.weight_scale[0] *= 2
    layer.bias_scale[0] *= 2
    layer.bias[0] = (layer.bias[0].double() / 2).round().int()


def code_and_bias_compensate(view: fx.GraphModule) -> None:
    """Two codes of one channel off by a step in opposite directions: right wherever the inputs are equal."""
    weight = layer_of(view, "stem.0").weight
    weight[0, 0, 0, 0] += 1 if weight[0, 0, 0, 0] < 120 else -1
    weight[0, 0, 0, 1] -= 1 if weight[0, 0, 0, 1] > -120 else -1


def two_channels_exchanged(view: fx.GraphModule) -> None:
    """Two output channels with everything they have."""
    layer = layer_of(view, "shortcut.0")
    for tensor in (layer.weight, layer.weight_scale, layer.bias, layer.bias_scale):
        assert tensor is not None
        tensor[[3, 4]] = tensor[[4, 3]]


def dead_unit_revived(view: fx.GraphModule) -> None:
    """The smallest scale of a layer, one float larger."""
    layer = layer_of(view, "branch.1")
    smallest = int(layer.weight_scale.argmin())
    layer.weight_scale[smallest] = torch.nextafter(layer.weight_scale[smallest], torch.tensor(torch.inf))


def factor_moved_to_keys(view: fx.GraphModule) -> None:
    """Attention's scale in the keys' layer: the same products, but for their rounding."""
    q, k = layer_of(view, "q"), layer_of(view, "k")
    for layer, factor in ((q, 4.0), (k, 0.25)):
        assert layer.bias_scale is not None
        layer.weight_scale.mul_(factor)
        layer.bias_scale.mul_(factor)


def heads_mixed(view: fx.GraphModule) -> None:
    """Heads and tokens merged in the wrong order: the same shape."""
    node = nodes_of(view)["transpose_5"]
    node.args = (node.args[0], 1, 1)


def keys_not_transposed(view: fx.GraphModule) -> None:
    """Heads of the values taken from other tokens."""
    node = nodes_of(view)["transpose_3"]
    source = nodes_of(view)["quantizers_k"]
    nodes_of(view)["reshape_2"].args = (source, nodes_of(view)["reshape_2"].args[1])
    assert node.args


def bias_of_padding(patch: Patch) -> None:
    """Behind an offset, the bias holds the sum of all weights but those of the kernel's edge."""
    absorb = fold.absorb_offset

    def wrong(folded: FoldedLayer, offset: Tensor) -> FoldedLayer:
        inner = folded.codes
        if inner.dim() == 4 and inner.shape[-1] == 3:
            inner = inner[..., 1:2, 1:2]
        held = absorb(FoldedLayer(inner, folded.scale, folded.bias), offset)
        return FoldedLayer(folded.codes, folded.scale, held.bias)

    patch.setattr(lowering, "absorb_offset", wrong)


def offset_in_float32_sums(patch: Patch) -> None:
    """The offset's share of a bias is dropped where it is below a thousandth of the bias."""
    absorb = fold.absorb_offset

    def wrong(folded: FoldedLayer, offset: Tensor) -> FoldedLayer:
        held = absorb(folded, offset)
        small = (held.bias - folded.bias).abs() < 0.05
        return FoldedLayer(folded.codes, folded.scale, torch.where(small, folded.bias, held.bias))

    patch.setattr(lowering, "absorb_offset", wrong)


def shift_rounded_to_halves(patch: Patch) -> None:
    """BatchNorm folded in float16."""
    affine = fold.batch_norm_affine

    def wrong(norm: nn.Module) -> tuple[Tensor, Tensor]:
        gain, shift = affine(norm)
        return gain.half().double(), shift.half().double()

    patch.setattr(fold, "batch_norm_affine", wrong)


# ---- files


def through_halves(before: str) -> Edit:
    """What the node that writes ``before`` reads is rounded to float16 on the way."""

    def edit(model: onnx.ModelProto) -> None:
        node = node_of(model, before)
        index = list(model.graph.node).index(node)
        name, half = f"{before}.single", f"{before}.half"
        casts = (
            helper.make_node("Cast", [node.input[0]], [half], name=half, to=TensorProto.FLOAT16),
            helper.make_node("Cast", [half], [name], name=name, to=TensorProto.FLOAT),
        )
        node.input[0] = name
        for offset, cast in enumerate(casts):
            model.graph.node.insert(index + offset, cast)

    return edit


def operation_before(before: str, op_type: str) -> Edit:
    """One more operation without numbers before the node that writes ``before``."""

    def edit(model: onnx.ModelProto) -> None:
        node = node_of(model, before)
        index, name = list(model.graph.node).index(node), f"{before}.inserted"
        model.graph.node.insert(index, helper.make_node(op_type, [node.input[0]], [name], name=name))
        node.input[0] = name

    return edit


def pool_window_shifted(model: onnx.ModelProto) -> None:
    attribute("pool", pads=[1, 1, 0, 0])(model)


def scales_of_addends_exchanged(model: onnx.ModelProto) -> None:
    one, other = node_of(model, "branch_2.values"), node_of(model, "shortcut_1.values")
    one.input[1], other.input[1] = other.input[1], one.input[1]


def logits_permuted(model: onnx.ModelProto) -> None:
    """Two classes exchanged behind the last layer."""
    node_of(model, "logits").output[0] = "logits.before"
    order = numpy_helper.from_array(np.array([1, 0, *range(2, 10)], np.int64), "logits.order")
    model.graph.initializer.append(order)
    model.graph.node.append(helper.make_node("Gather", ["logits.before", "logits.order"], ["logits"], axis=1))


def batch_of_two(model: onnx.ModelProto) -> None:
    """The file says that it takes two images, no more and no less."""
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2


def heads_not_transposed(model: onnx.ModelProto) -> None:
    """Heads and tokens merged in the wrong order."""
    *_, last = (node for node in model.graph.node if node.op_type == "Transpose")
    attribute(last.output[0], perm=[0, 1, 2, 3])(model)


def last_logit_repeated(values: Array) -> Array:
    changed = values.copy()
    changed[-1] = changed[-2]
    return changed


_LOWERING: tuple[tuple[str, str, ViewEdit, str], ...] = (
    ("one channel stored as its bias", "cnn", channel_is_its_bias("branch.1"), r"branch\.1|branch_2"),
    ("codes of a channel halved at twice the scale", "cnn", refinement_and_scale_of_one_channel, r"mix"),
    ("two codes off in opposite directions", "cnn", code_and_bias_compensate, r"stem\.0|stem_2"),
    ("two output channels exchanged", "cnn", two_channels_exchanged, r"shortcut"),
    ("smallest scale one float larger", "cnn", dead_unit_revived, r"branch\.1|branch_2"),
    ("attention's scale in the keys", "vit", factor_moved_to_keys, r"\bq\b|\bk\b|mul"),
)
_OPERATIONS: tuple[tuple[str, str, ViewEdit, str], ...] = (
    ("average over one pixel less", "cnn", average_of_one_pixel_less, r"head_pool|global"),
    ("scale of pooled codes", "cnn", pooled_scale, r"pool|branch|shortcut"),
    ("scales of the addends exchanged", "cnn", addends_exchange_scales, r"branch_2|shortcut_1|relu"),
    ("offset taken off twice", "offsets", offset_read_back_twice, r"spread_1_4bit"),
    ("heads merged in the wrong order", "vit", heads_mixed, r"matmul_1|proj"),
    ("values from the keys' codes", "vit", keys_not_transposed, r"\bv\b|matmul_1"),
    ("softmax of the first axis of heads", "vit", argument("softmax", 1, 1), r"softmax"),
)
_ARITHMETIC: tuple[tuple[str, str, Callable[[Patch], None], str], ...] = (
    ("offset of the kernel's centre alone", "offsets", bias_of_padding, r"spread"),
    ("small shares of an offset dropped", "offsets", offset_in_float32_sums, r"reduce|spread|expand|head"),
    ("BatchNorm folded in float16", "cnn", shift_rounded_to_halves, r"stem\.0|stem_2"),
)
_FILES: tuple[tuple[str, str, Edit, str], ...] = (
    ("window of a pool shifted", "cnn", pool_window_shifted, r"pool"),
    (
        "scales of the addends exchanged in the file",
        "cnn",
        scales_of_addends_exchanged,
        r"branch_2|shortcut_1",
    ),
    ("batch of two", "cnn", batch_of_two, r"image|input"),
    ("classes exchanged behind the last layer", "cnn", logits_permuted, r"logits"),
    ("scales of square weights on the other axis", "cnn", attribute("mix.0.weight.values", axis=1), r"mix"),
    ("image rounded to float16", "cnn", through_halves("image.codes"), r"image"),
    ("sum rounded to float16", "cnn", through_halves("relu.unclipped"), r"relu"),
    ("ReLU before a signed quantizer", "cnn", operation_before("branch_2.codes", "Relu"), r"branch_2"),
    ("a bias scale that no kernel reads", "cnn", constant("head.fc.bias_scale", next_float), r"head\.fc"),
    ("last class repeated", "cnn", constant("head.fc.bias", last_logit_repeated), r"head\.fc|logits"),
    ("LayerNorm's result rounded to float16", "vit", through_halves("norm1.unclipped"), r"norm1"),
    ("residual stream rounded to float16", "vit", through_halves("norm2"), r"norm2"),
    ("softmax twice", "vit", operation_before("softmax", "Softmax"), r"softmax"),
    ("norms exchanged", "vit", swapped("norm1.weight", "norm2.weight"), r"norm"),
    (
        "scale of keys for values",
        "vit",
        read_instead("transpose_2.values", 1, "quantizers.k.scale"),
        r"\bv\b|matmul_1",
    ),
    ("pooled codes bounded", "offsets", operation_before("pool.codes", "Relu"), r"pool"),
)
_HALVES: tuple[tuple[str, Edit, str], ...] = (
    ("softmax over the wrong axis", attribute("softmax", axis=-2), r"softmax|matmul_1"),
    ("token of the classifier", own_constant("gather", 1, lambda v: v + 1), r"gather|getitem_5"),
    ("sign of an offset", operation("sub", "Add"), r"sub|act"),
    ("one for a half in the GELU", own_constant("act_3", 0, lambda v: v * 2), r"act"),
    ("residual sum of another tensor", read_instead("add_2", 0, "add"), r"add_2|norm3|getitem_5"),
    ("order of heads", heads_not_transposed, r"ranspose|matmul_1|proj|reshape"),
    (
        "one code off by one",
        constant("fc1.weight", lambda v: v + (np.arange(v.size) == 7).reshape(v.shape).astype(v.dtype)),
        r"fc1",
    ),
    ("weight of a LayerNorm", constant("norm1.weight", times(1.01)), r"norm1"),
    ("scale of an activation", constant("quantizers.norm1.scale", times(1.001)), r"norm1"),
    ("Clip dropped", bypassed("norm1.bounded"), r"norm1"),
)


# ---- the user's model is another one than it was in training


def submodule_replaced(name: str, path: str, module: Callable[[], nn.Module]) -> Callable[[Patch], None]:
    """The class of the model builds another module at ``path``."""
    kind = getattr(networks, name)

    def change(patch: Patch) -> None:
        build = kind.__init__

        def wrong(self: nn.Module, *arguments: Any, **settings: Any) -> None:
            build(self, *arguments, **settings)
            self.set_submodule(path, module())

        patch.setattr(kind, "__init__", wrong)

    return change


def with_setting(name: str, path: str, **values: Any) -> Callable[[Patch], None]:
    kind = getattr(networks, name)

    def change(patch: Patch) -> None:
        build = kind.__init__

        def wrong(self: nn.Module, *arguments: Any, **settings: Any) -> None:
            build(self, *arguments, **settings)
            for key, value in values.items():
                setattr(self.get_submodule(path), key, value)

        patch.setattr(kind, "__init__", wrong)

    return change


_CODE: tuple[tuple[str, str, Callable[[Patch], None], str], ...] = (
    (
        "epsilon of a BatchNorm",
        "cnn",
        with_setting("ResidualCnn", "branch.0.1", eps=0.01),
        r"branch\.0\.1|eps",
    ),
    (
        "stride of a convolution",
        "cnn",
        with_setting("ResidualCnn", "shortcut.0", padding=(1, 1)),
        r"shortcut",
    ),
    (
        "average pool for max pool",
        "cnn",
        submodule_replaced("ResidualCnn", "pool", lambda: nn.AvgPool2d(2)),
        r"pool",
    ),
    ("epsilon of a LayerNorm", "vit", with_setting("TinyVit", "norm2", eps=0.01), r"norm2|eps"),
    (
        "tanh formula of the GELU",
        "vit",
        submodule_replaced("TinyVit", "act", lambda: nn.GELU("tanh")),
        r"act",
    ),
    ("SiLU for Hardswish", "offsets", submodule_replaced("Bottleneck", "expand.2", nn.SiLU), r"expand"),
)

MUTANTS = (
    *(Mutant(name, network, "view", change, named) for name, network, change, named in _LOWERING),
    *(Mutant(name, network, "graph", change, named) for name, network, change, named in _OPERATIONS),
    *(Mutant(name, network, "arithmetic", change, named) for name, network, change, named in _ARITHMETIC),
    *(Mutant(name, network, "onnxruntime", change, named) for name, network, change, named in _FILES),
    *(Mutant(name, "halves", "float16", change, named) for name, change, named in _HALVES),
    *(Mutant(name, network, "code", change, named) for name, network, change, named in _CODE),
)
