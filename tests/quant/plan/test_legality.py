"""Rules of the targets: for each, a plan that breaks it and one that keeps it."""

from dataclasses import replace
from typing import Literal

import pytest
from torch import nn

from saq_qat.errors import LegalityError
from saq_qat.quant.network import plan_network, quantize
from saq_qat.quant.numerics.grid import Grid
from saq_qat.quant.plan.legality import judge
from saq_qat.quant.plan.plan import Finding, Plan
from saq_qat.recipe.schema import Override, Quant
from tests.quant.networks import TARGETS, BranchAndConcat, Residual, policy


def plan_of(quant: Quant, model: type[nn.Module] = Residual, targets: tuple[str, ...] = TARGETS) -> Plan:
    return plan_network(model(), quant, targets)[1]


def found(plan: Plan, rule: str) -> list[Finding]:
    return [finding for finding in plan.findings if finding.rule == rule]


NO_IMAGE = policy(quantize_image=False)
SEVEN_BITS_OF_THE_PAPER = policy(grid="paper", overrides=(Override(match="stem", weight_bits=7),))
BROKEN: dict[str, tuple[Literal["error", "warning", "note"], str, Quant]] = {
    "ORT003": ("error", "stem", policy(grid="paper")),
    "ORT004": ("warning", "stem", NO_IMAGE),
    "ORT005": ("error", "stem", SEVEN_BITS_OF_THE_PAPER),
    "ORT006": ("note", "network", policy()),
}
KEPT = {
    "ORT003": policy(),
    "ORT004": policy(),
    "ORT005": policy(overrides=(Override(match="stem", weight_bits=7),)),
    "ORT006": policy(8),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_plan_that_breaks_a_rule_is_told_so_with_level_and_place(rule: str) -> None:
    level, where, quant = BROKEN[rule]
    findings = found(plan_of(quant), rule)
    assert (level, where) in [(finding.level, finding.where) for finding in findings]


@pytest.mark.parametrize("rule", KEPT)
def test_a_plan_that_keeps_a_rule_hears_nothing_of_it(rule: str) -> None:
    assert found(plan_of(KEPT[rule]), rule) == []


def test_a_recipe_for_cpus_with_vnni_keeps_its_weights_and_is_told_what_others_give() -> None:
    network, plan = plan_network(Residual(), policy(), TARGETS, cpu="vnni")
    assert [layer.grid.describe() for layer in plan.layers if layer.name == "stem"] == ["-127..127"]
    (finding,) = found(plan, "ORT005")
    assert (finding.level, finding.where) == ("warning", "stem")
    assert "2 * 255 * 127" in finding.message
    (refused,) = found(judge(plan, network, TARGETS), "ORT005")
    assert refused.level == "error"


def test_tensorrt_alone_needs_no_pair_bound() -> None:
    plan = plan_of(policy(), targets=("tensorrt",))
    assert {layer.grid.describe() for layer in plan.layers if layer.bits == 8} == {"-127..127"}
    assert found(plan, "ORT005") == []


def test_codes_of_more_than_eight_bits_break_ort002() -> None:
    network, plan = plan_network(Residual(), policy(), ())
    wide = replace(plan.tensors[0], grid=Grid(0, 256, unit=256))
    assert found(judge(replace(plan, tensors=(wide, *plan.tensors[1:])), network, TARGETS), "ORT002")
    assert not found(judge(plan, network, TARGETS), "ORT002")


def test_operations_that_stay_float_are_named_by_ort007() -> None:
    (finding,) = found(plan_of(policy(), BranchAndConcat), "ORT007")
    assert finding.message.startswith(
        "3 operations stay float between codes: 1 sigmoid, 1 mul, 1 cat. Integers"
    )
    assert found(plan_of(policy()), "ORT007") == []


def test_errors_stop_quantize_and_list_their_fixes() -> None:
    with pytest.raises(LegalityError, match=r"cannot run this plan:\n  error ORT003 .*deploy\.targets: \[\]"):
        quantize(Residual(), policy(grid="paper"), TARGETS)


def test_without_targets_nothing_is_illegal_and_nothing_is_promised() -> None:
    plan = plan_of(policy(grid="paper"), targets=())
    assert plan.findings == ()
    assert not plan.deployable
    assert plan_of(policy(), targets=()).deployable


def test_a_finding_reads_as_one_line() -> None:
    finding = Finding("ORT004", "warning", "stem", "runs as a float kernel.", "Quantize the image.")
    assert str(finding) == "warning ORT004 stem: runs as a float kernel. Quantize the image."
    assert str(replace(finding, fix="")) == "warning ORT004 stem: runs as a float kernel."
