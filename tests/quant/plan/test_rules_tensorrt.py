"""Rules of target tensorrt over plans: for each, a plan that breaks it and one that keeps it."""

import pytest

from saq_qat.errors import LegalityError
from saq_qat.quant.network import plan_network, quantize
from saq_qat.quant.plan.plan import Plan
from saq_qat.recipe.schema import ActivationQuantizer, Quant
from tests.quant.networks import Residual, policy

BOTH = ("onnxruntime", "tensorrt")
BROKEN = {
    "TRT002": ("error", "average", policy(grid="paper")),
    "TRT009": ("warning", "stem", policy(quantize_image=False)),
    "TRT020": ("error", "stem", policy(grid="paper")),
}


def plan_of(quant: Quant, targets: tuple[str, ...] = ("tensorrt",)) -> Plan:
    return plan_network(Residual(), quant, targets)[1]


@pytest.mark.parametrize("targets", [("tensorrt",), BOTH])
@pytest.mark.parametrize("rule", BROKEN)
def test_a_plan_that_breaks_a_rule_is_told_so_with_level_and_place(
    rule: str, targets: tuple[str, ...]
) -> None:
    level, where, quant = BROKEN[rule]
    found = [(f.level, f.where) for f in plan_of(quant, targets).findings if f.rule == rule]
    assert (level, where) in found


def test_a_plan_that_keeps_the_rules_hears_nothing() -> None:
    assert plan_of(policy()).findings == ()


def test_unsigned_codes_of_eight_bits_fit_only_uint8() -> None:
    lsq = policy(activation=ActivationQuantizer(kind="lsq", bits=8))
    assert plan_of(lsq, ("onnxruntime",)).errors == ()
    assert {error.rule for error in plan_of(lsq, BOTH).errors} == {"TRT002"}
    with pytest.raises(LegalityError, match=r"TRT002 relu1: codes 0\.\.255 do not fit int8"):
        quantize(Residual(), lsq, BOTH)


def test_a_layer_can_be_integer_on_one_target_and_float_on_another() -> None:
    plan = plan_of(policy(placement="paper"), BOTH)
    conv2 = next(layer for layer in plan.layers if layer.name == "conv2")
    assert conv2.integer_on("tensorrt") and not conv2.integer_on("onnxruntime")
    assert conv2.float_reason == "on onnxruntime, its output is not quantized"
    assert not conv2.integer
