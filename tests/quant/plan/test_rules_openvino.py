"""Target openvino over plans: where it puts quantizers, and for each rule a plan that breaks it."""

from dataclasses import replace

import pytest

from saq_qat.errors import LegalityError
from saq_qat.quant.network import plan_network, quantize
from saq_qat.quant.numerics.grid import Grid
from saq_qat.quant.plan.legality import judge
from saq_qat.quant.plan.plan import Plan
from saq_qat.recipe.schema import Override, Quant
from tests.quant.networks import Attention, Residual, Shortcut, policy

OPENVINO = ("openvino",)
BROKEN = {
    "OV001": ("error", "add", policy(), ("onnxruntime", "openvino")),
    "OV003": ("error", "stem", policy(grid="paper"), OPENVINO),
    "OV004": ("warning", "stem", policy(quantize_image=False), OPENVINO),
    "OV005": (
        "error",
        "stem",
        policy(grid="paper", overrides=(Override(match="stem", weight_bits=7),)),
        OPENVINO,
    ),
    "OV007": ("note", "network", policy(placement="paper"), OPENVINO),
}


def plan_of(quant: Quant, targets: tuple[str, ...] = OPENVINO) -> Plan:
    return plan_network(Residual(), quant, targets)[1]


def test_of_a_sum_the_shortcut_and_the_result_have_codes_and_the_convolution_that_runs_with_it_has_none() -> (
    None
):
    plan = plan_of(policy())
    names = {tensor.after for tensor in plan.tensors if tensor.role in ("residual", "pooled")}
    assert names == {"shortcut_bn", "relu2"}
    assert all(layer.integer for layer in plan.layers)


@pytest.mark.parametrize(
    ("quant", "targets", "largest"),
    [
        (policy(), OPENVINO, 255),
        (policy(), ("openvino", "tensorrt"), 127),
        (policy(8), OPENVINO, 127),
        (policy(residual_bits=6), OPENVINO, 63),
    ],
)
def test_unsigned_codes_of_sums_fill_the_byte_where_no_layer_reads_them(
    quant: Quant, targets: tuple[str, ...], largest: int
) -> None:
    _, plan = plan_network(Shortcut(), quant, targets)
    first = next(tensor for tensor in plan.tensors if tensor.after == "stem_relu")
    assert first.grid == Grid(0, largest, unit=largest)


def test_products_of_two_activations_stay_float_where_openvino_is_the_only_target() -> None:
    _, alone = plan_network(Attention(), policy(), OPENVINO)
    _, both = plan_network(Attention(), policy(), ("onnxruntime", "openvino"))
    assert alone.products == () and "operand" not in {tensor.role for tensor in alone.tensors}
    assert both.products


@pytest.mark.parametrize("cpu", ["any", "vnni"])
def test_the_pair_bound_holds_whatever_onnx_runtime_may_do(cpu: str) -> None:
    _, plan = plan_network(Residual(), policy(), OPENVINO, cpu=cpu)  # type: ignore[arg-type]  # one of two words
    assert next(layer for layer in plan.layers if layer.name == "stem").grid.describe() == "-63..63"


@pytest.mark.parametrize("rule", BROKEN)
def test_a_plan_that_breaks_a_rule_is_told_so_with_level_and_place(rule: str) -> None:
    level, where, quant, targets = BROKEN[rule]
    assert (level, where) in [(f.level, f.where) for f in plan_of(quant, targets).findings if f.rule == rule]


def test_a_plan_that_keeps_the_rules_hears_nothing() -> None:
    assert plan_of(policy()).findings == ()


def test_codes_of_more_than_eight_bits_break_ov002() -> None:
    network, plan = plan_network(Residual(), policy(), OPENVINO)
    wide = replace(plan.tensors[0], grid=Grid(0, 256, unit=256))
    judged = judge(replace(plan, tensors=(wide, *plan.tensors[1:])), network, OPENVINO)
    assert "OV002" in {finding.rule for finding in judged.findings}


def test_a_sum_that_loses_a_quantizer_is_refused_with_what_to_change() -> None:
    with pytest.raises(
        LegalityError, match=r"OV001 add: adds codes of a convolution.*deploy\.targets.*paper"
    ):
        quantize(Residual(), policy(), ("onnxruntime", "openvino"))


def test_a_sum_with_a_convolution_that_writes_floats_keeps_all_codes() -> None:
    for quant, targets in (
        (policy(), ("tensorrt", "openvino")),
        (policy(placement="paper"), ("onnxruntime", "openvino")),
    ):
        assert plan_of(quant, targets).errors == ()
