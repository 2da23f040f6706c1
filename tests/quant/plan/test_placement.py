"""Placement: exact plans of known networks."""

from collections import Counter

import pytest
import torch.nn.functional as F
from torch import Tensor, nn

from saq_qat.errors import LegalityError
from saq_qat.models.build import build_model
from saq_qat.quant.network import plan_network
from saq_qat.quant.plan.plan import Plan
from saq_qat.recipe.schema import ActivationQuantizer, Model, Override, WeightQuantizer
from tests.quant.networks import (
    TARGETS,
    Attention,
    Bottleneck,
    BranchAndConcat,
    Gated,
    NoNorm,
    Residual,
    Swish,
    policy,
)

AS_INNER = Override(match="last", weight_bits=4, activation_bits=4)
"""The last layer with the bits of the others."""


def plan_of(model: nn.Module | str, **options: object) -> Plan:
    network = build_model(Model(name=model), 10) if isinstance(model, str) else model
    return plan_network(network, policy(**options), TARGETS)[1]  # type: ignore[arg-type]  # options of several types


def table(plan: Plan) -> list[str]:
    """One line per quantizer: name, node, role, codes, consumers, and where its input comes from."""
    return [
        f"{t.name} after {t.after}: {t.role} {t.grid.describe()} for {'+'.join(t.consumers) or 'the kernel'}"
        + (f" from {t.requantizes}" if t.requantizes else "")
        for t in plan.tensors
    ]


def test_a_residual_network_gets_codes_wherever_kernels_need_them() -> None:
    assert table(plan_of(Residual())) == [
        "image after x: image -128..127 for stem",
        "stem_relu after stem_relu: input 0..15 for conv1+shortcut",
        "relu1 after relu1: input 0..15 for conv2",
        "bn2 after bn2: residual -128..127 for add",
        "shortcut_bn after shortcut_bn: residual -128..127 for add",
        "relu2 after relu2: pooled 0..127 for average",
        "average after average: input 0..127 for fc",
    ]


def test_layers_know_their_grid_their_input_and_their_output() -> None:
    layers = [
        (layer.name, layer.op, layer.grid.describe(), layer.normalize, layer.input, layer.output)
        for layer in plan_of(Residual()).layers
    ]
    assert layers == [
        ("stem", "conv", "-63..63", True, "image", "stem_relu"),
        ("conv1", "conv", "-15..15 odd", True, "stem_relu", "relu1"),
        ("conv2", "conv", "-15..15 odd", True, "relu1", "bn2"),
        ("shortcut", "conv", "-15..15 odd", True, "stem_relu", "shortcut_bn"),
        ("fc", "linear", "-127..127", False, "average", None),
    ]
    assert all(layer.integer for layer in plan_of(Residual()).layers)


def test_placement_of_the_paper_quantizes_inputs_of_layers_only() -> None:
    plan = plan_of(Residual(), placement="paper", grid="paper", quantize_image=False)
    assert table(plan) == [
        "stem_relu after pool: input 0..15 for conv1+shortcut",
        "relu1 after relu1: input 0..15 for conv2",
        "average after flatten: input 0..255 for fc",
    ]
    assert [layer.grid.describe() for layer in plan.layers] == [
        "-255..255 odd",
        *["-15..15 odd"] * 3,
        "-255..255 odd",
    ]


def test_without_a_quantized_image_the_first_layer_is_float_and_says_so() -> None:
    plan = plan_of(Residual(), quantize_image=False)
    assert [layer.name for layer in plan.layers if not layer.integer] == ["stem"]
    assert plan.layers[0].float_reason == "on onnxruntime, its input is not quantized"
    assert "image" not in [tensor.name for tensor in plan.tensors]


def test_resnet18_has_one_quantizer_for_a_block_and_its_downsample() -> None:
    plan = plan_of("resnet18")
    roles = Counter((t.role, t.grid.describe(), t.requantizes is not None) for t in plan.tensors)
    assert roles == {
        ("image", "-128..127", False): 1,
        ("input", "0..15", False): 11,
        ("input", "0..15", True): 5,
        ("residual", "-128..127", False): 11,
        ("residual", "0..127", False): 5,
        ("pooled", "0..127", False): 1,
        ("input", "0..127", False): 1,
    }
    named = {tensor.name: tensor for tensor in plan.tensors}
    assert named["layer1_1_relu_1"].consumers == ("layer2_0_conv1", "layer2_0_downsample_0")
    assert named["relu_4bit"].after == "maxpool"
    assert named["relu_4bit"].requantizes == "relu"
    assert len(plan.layers) == 21 and all(layer.integer for layer in plan.layers)


def test_mobilenet_has_signed_grids_behind_its_linear_bottlenecks() -> None:
    plan = plan_of("mobilenet_v2")
    grids = {tensor.name: tensor.grid.describe() for tensor in plan.tensors}
    assert grids["features_1_conv_2"] == "-7..7"
    assert (grids["features_2_conv_3"], grids["features_2_conv_3_4bit"]) == ("-128..127", "-7..7")
    assert grids["features_2_conv_1_2"] == "0..15"
    assert len(plan.layers) == 53 and all(layer.integer for layer in plan.layers)


@pytest.mark.parametrize(("name", "tensors"), [("resnet20", 39), ("preresnet20", 39)])
def test_the_cifar_networks_run_as_integers_throughout(name: str, tensors: int) -> None:
    plan = plan_of(name)
    assert len(plan.tensors) == tensors
    assert len(plan.layers) == 22 and all(layer.integer for layer in plan.layers)


def test_a_layer_that_no_batch_norm_follows_gets_its_deviation_back() -> None:
    rescaled = {layer.name: layer.rescale_std for layer in plan_of("preresnet20").layers}
    assert rescaled["layer1.0.conv2"] and rescaled["conv1"]
    assert not rescaled["layer1.0.conv1"]
    assert not rescaled["fc"]


def test_edges_are_found_by_what_they_read_and_write() -> None:
    bits = {layer.name: layer.bits for layer in plan_of(Residual(), edge_bits=7).layers}
    assert bits == {"stem": 7, "conv1": 4, "conv2": 4, "shortcut": 4, "fc": 7}


def test_residual_bits_reach_sums_and_averages() -> None:
    grids = {t.name: t.grid.describe() for t in plan_of(Residual(), residual_bits=6).tensors}
    assert (grids["bn2"], grids["relu2"]) == ("-31..31", "0..63")


def test_the_last_matching_override_wins() -> None:
    overrides = (
        Override(match="conv*", weight_bits=2, activation_bits=3),
        Override(match="conv2", weight_bits=6, weight_kind="symmetric"),
    )
    plan = plan_of(Residual(), overrides=overrides)
    weights = {layer.name: layer.grid.describe() for layer in plan.layers}
    assert (weights["conv1"], weights["conv2"], weights["fc"]) == ("-3..3 odd", "-31..31", "-127..127")
    assert {t.name: t.bits for t in plan.tensors}["relu1"] == 3


def test_different_needs_of_one_tensor_get_a_common_quantizer_and_a_narrow_one_each() -> None:
    plan = plan_of(Residual(), overrides=(Override(match="shortcut", activation_bits=2),))
    assert table(plan)[1:4] == [
        "stem_relu after stem_relu: residual 0..127 for the kernel",
        "stem_relu_4bit_0 after pool: input 0..15 for conv1 from stem_relu",
        "stem_relu_2bit_1 after pool: input 0..3 for shortcut from stem_relu",
    ]


def test_an_override_that_matches_nothing_lists_the_layers() -> None:
    with pytest.raises(
        LegalityError, match=r"overrides\.0\.match: 'layer9\.\*' matches no layer\. Layers: stem"
    ):
        plan_of(Residual(), overrides=(Override(match="layer9.*", weight_bits=2),))


def test_a_layer_called_twice_has_two_inputs_and_one_grid() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.conv(x))  # type: ignore[no-any-return]  # modules return Any

    plan = plan_of(Twice())
    first, second = plan.layers
    assert (first.name, second.name) == ("conv", "conv_use_2")
    assert first.grid == second.grid
    assert first.input != second.input


def test_a_network_without_layers_is_refused() -> None:
    with pytest.raises(LegalityError, match="needs a convolution"):
        plan_of(nn.Sequential(nn.ReLU()))


def test_a_concatenation_is_quantized_for_the_convolution_that_reads_it() -> None:
    plan = plan_of(BranchAndConcat(), overrides=(AS_INNER,))
    assert table(plan) == [
        "image after x: image -128..127 for stem",
        "relu after relu: input 0..15 for left+gate+right",
        "left after left: residual -128..127 for the kernel",
        "gate after gate: residual -128..127 for the kernel",
        "relu_1 after relu_1: residual 0..127 for the kernel",
        "cat after cat: input -7..7 for last",
        "last after last: pooled -128..127 for mean",
    ]
    assert all(layer.integer for layer in plan.layers)


def test_a_reader_in_float_sees_the_residual_bits_not_its_neighbours() -> None:
    assert table(plan_of(Gated()))[2:4] == [
        "relu_1 after relu_1: residual 0..127 for the kernel",
        "relu_1_4bit after relu_1: input 0..15 for head from relu_1",
    ]


def test_shapes_and_parameters_are_no_readers_of_codes() -> None:
    assert table(plan_of(NoNorm())) == [
        "image after x: image -128..127 for conv1",
        "relu after relu: input 0..15 for conv2",
        "conv2 after conv2: residual -128..127 for the kernel",
        "relu_1 after relu_1: input 0..127 for fc",
    ]


def test_a_float_operation_that_two_kinds_of_readers_share_stays_float_for_the_second() -> None:
    class Smooth(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv, self.last = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            smooth = F.silu(self.stem(x))
            return self.last(F.silu(self.conv(smooth)) * smooth)  # type: ignore[no-any-return]  # modules return Any

    plan = plan_of(Smooth())
    smooth = next(tensor for tensor in plan.tensors if tensor.after == "silu")
    assert (smooth.shared, smooth.consumers) == (False, ("conv",))


def test_for_tensorrt_alone_a_convolution_and_the_sum_behind_it_run_as_one_kernel() -> None:
    plan = plan_network(Residual(), policy(), ("tensorrt",))[1]
    assert table(plan) == [
        "image after x: image -128..127 for stem",
        "stem_relu after stem_relu: input 0..15 for conv1+shortcut",
        "relu1 after relu1: input 0..15 for conv2",
        "shortcut_bn after shortcut_bn: residual -128..127 for add",
        "relu2 after relu2: pooled 0..127 for average",
        "average after average: input 0..127 for fc",
    ]
    assert all(layer.integer for layer in plan.layers)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "resnet20", "preresnet20"])
def test_several_targets_get_what_the_more_demanding_one_needs(name: str) -> None:
    both, cpu, gpu = (
        plan_network(build_model(Model(name=name), 10), policy(), targets)[1]
        for targets in (("onnxruntime", "tensorrt"), ("onnxruntime",), ("tensorrt",))
    )
    assert both.tensors == cpu.tensors
    assert {tensor.name for tensor in gpu.tensors} < {tensor.name for tensor in both.tensors}
    assert all(layer.integer for plan in (both, cpu, gpu) for layer in plan.layers)


def test_attention_gets_codes_for_layers_and_operands_and_keeps_its_stream_in_float() -> None:
    plan = plan_of(Attention(), activation=ActivationQuantizer(kind="lsq", bits=4, offset="bounded"))
    assert table(plan) == [
        "image after x: image -128..127 for patches",
        "patches after patches: residual -128..127 for the kernel",
        "norm1 after norm1: input -8..7 for q+k+v",
        "k after k: operand -8..7 for matmul",
        "v after v: operand -8..7 for matmul_1",
        "mul after mul: operand -8..7 for matmul",
        "softmax after softmax: operand 0..15 for matmul_1",
        "matmul_1 after matmul_1: input -8..7 for proj",
        "norm2 after norm2: input -8..7 for fc1",
        "act after act: input 0..15 for fc2",
        "getitem_4 after getitem_4: input -128..127 for head",
    ]
    assert [tensor.name for tensor in plan.tensors if tensor.offset] == ["act"]
    assert plan.products == ("matmul", "matmul_1")
    assert all(layer.integer for layer in plan.layers)


def test_readers_of_codes_with_an_offset_share_them_whether_or_not_they_pad() -> None:
    plan = plan_of(
        Swish(),
        activation=ActivationQuantizer(kind="saq", bits=4, offset="bounded"),
        overrides=(AS_INNER,),
    )
    assert [(t.name, t.describe(), t.consumers) for t in plan.tensors if t.role == "input"] == [
        ("act", "-z..15-z + offset", ("depthwise", "project")),
        ("hardswish", "-z..15-z + offset", ("body",)),
        ("gelu", "0..15 + offset", ("last",)),
    ]
    assert all(layer.integer for layer in plan.layers)
    assert [t.describe() for t in plan_of(Swish(), overrides=(AS_INNER,)).tensors if t.role == "input"] == [
        "-7..7"
    ] * 3


def test_offsets_of_signed_inputs() -> None:
    quant = {"activation": ActivationQuantizer(kind="saq", bits=4, offset="signed")}
    plan = plan_of(Bottleneck(), overrides=(AS_INNER,), **quant)
    assert table(plan) == [
        "image after x: image -128..127 for stem",
        "relu6 after relu6: input 0..15 for reduce",
        "reduce_bn after reduce_bn: residual -128..127 for add",
        "reduce_bn_4bit after reduce_bn: input 0..15 for expand from reduce_bn",
        "relu6_1 after relu6_1: input 0..15 for depthwise",
        "relu6_2 after relu6_2: input 0..15 for project",
        "project_bn after project_bn: residual -128..127 for add",
        "add after add: residual -128..127 for the kernel",
        "add_4bit after add: input 0..15 for last from add",
        "last after last: pooled -128..127 for mean",
    ]
    assert [tensor.name for tensor in plan.tensors if tensor.offset] == ["reduce_bn_4bit", "add_4bit"]
    plain = plan_of(Bottleneck())
    assert not any(tensor.offset for tensor in plain.tensors)


@pytest.mark.parametrize(
    ("kind", "asked", "normalised"),
    [("saq", None, True), ("lsq", None, False), ("lsq", True, True), ("saq", False, False)],
)
def test_weights_with_a_clip_level_are_normalised_and_those_with_a_step_size_are_not(
    kind: str, asked: bool | None, normalised: bool
) -> None:
    plan = plan_of(NoNorm(), weight=WeightQuantizer(kind=kind, bits=4), normalize_weights=asked)  # type: ignore[arg-type]  # one of the kinds
    found = {layer.name: (layer.normalize, layer.rescale_std) for layer in plan.layers}
    assert found == {"conv1": (normalised,) * 2, "conv2": (normalised,) * 2, "fc": (False, False)}
