"""A plan a person can read: blocks once, every product, what is float and why, on a narrow terminal too."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from saq_qat.cli.plan_text import plan_lines, planned_integers, unlearned_biases
from saq_qat.models.build import build_model
from saq_qat.quant.network import plan_network
from saq_qat.quant.plan.plan import Plan
from saq_qat.recipe.load import load_recipe
from saq_qat.recipe.schema import ActivationQuantizer, Model, Quant, Recipe, WeightQuantizer

pytest.importorskip("timm", reason="needs the extra vit")

CONFIGS = Path(__file__).parents[2] / "configs"
TARGETS = ("onnxruntime", "tensorrt")


def planned(config: str, classes: int) -> tuple[Recipe, Plan]:
    recipe = load_recipe(CONFIGS / config)
    model = build_model(Model(name=recipe.model.name), classes)
    assert recipe.quant is not None
    return recipe, plan_network(model, recipe.quant, TARGETS)[1]


@pytest.fixture(scope="module")
def vit() -> Plan:
    return planned("imagenet/vit_s16-w4a4-saq.yaml", 1000)[1]


def test_the_plan_of_vit_s16_fits_a_narrow_terminal(vit: Plan) -> None:
    lines = plan_lines(vit, integer_attention=True, width=80)
    assert len(lines) < 50
    tables = [line for line in lines if not re.match(r"  (offset|residual|operand) ", line)]
    assert max(map(len, tables)) <= 80
    assert not any("…" in line for line in lines)
    assert sum("blocks.0 to blocks.11, 12 alike" in line for line in lines) == 3


def test_every_layer_is_listed_on_demand(vit: Plan) -> None:
    text = "\n".join(plan_lines(vit, integer_attention=True, fold=False))
    assert text.count("attn.q ") == 12 and text.count("    attn_softmax ") == 12


def test_roles_offsets_and_factors_of_products_are_shown_and_explained(vit: Plan) -> None:
    lines = plan_lines(vit, integer_attention=False)
    text = "\n".join(lines)
    (gelu,) = [line for line in lines if line.strip().startswith("mlp_act ")]
    assert "0..15 + offset" in gelu and "learned offset" in text
    for role in {tensor.role for tensor in vit.tensors}:
        assert re.search(rf"^  {role} +(the|read|a|written)", text, re.MULTILINE), role
    (product,) = [line for line in lines if line.strip().startswith("attn_matmul ") and "factors" not in line]
    assert "attn_mul, attn_k" in product and "on tensorrt float by deploy.tensorrt.attention" in product


def test_products_count_for_each_target_as_it_will_run_them(vit: Plan) -> None:
    onnxruntime, tensorrt = planned_integers(vit, TARGETS, integer_attention=False)
    assert "98/98 for onnxruntime" in onnxruntime and "24/24 products" in onnxruntime
    assert "74/98 for tensorrt" in tensorrt and "0/24 products" in tensorrt
    assert "98/98 for tensorrt" in planned_integers(vit, TARGETS, integer_attention=True)[1]


def test_what_stays_float_is_counted_by_kind_with_the_reason(vit: Plan) -> None:
    (finding,) = [finding for finding in vit.findings if finding.rule == "ORT007"]
    for part in ("25 LayerNorm", "12 Softmax", "12 GELU", "25 sum", "of which a convolution writes a term"):
        assert part in finding.message


def test_codes_that_only_a_narrower_quantizer_reads_name_it() -> None:
    _, plan = planned("imagenette/mobilenetv2-w4a4-saq.yaml", 10)
    text = "\n".join(plan_lines(plan, integer_attention=True))
    assert re.search(r"conv_2 +residual +8-bit saq +-128\.\.127 +conv_2_4bit\n", text)
    assert re.search(r"conv_2_4bit +input +4-bit saq +0\.\.15 \+ offset", text)
    assert "before they are quantized: all but classifier.1" in text


def test_codes_that_count_from_that_of_zero_are_explained() -> None:
    quant = Quant(weight=WeightQuantizer(bits=4), activation=ActivationQuantizer(bits=4, offset="bounded"))
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Conv2d(4, 4, 3, padding=1))
    text = "\n".join(plan_lines(plan_network(model, quant, TARGETS)[1], integer_attention=True))
    assert re.search(r"8-bit saq +-z\.\.127-z \+ offset", text)
    assert re.search(r"^  z +code of 0, learned with the offset", text, re.MULTILINE)


def test_check_refuses_statistics_of_a_network_without_batch_norm(
    saq_qat: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    stages = "train.stages=[{kind: quantized, epochs: 1, lr: 0.1}, {kind: statistics, batches: 2}]"
    recipe = [str(CONFIGS / "cifar10/vit-micro-w4a4-saq.yaml"), stages, "model.pretrained=null"]
    assert saq_qat("check", *recipe, "--classes", "10") == 2
    assert "train.stages.1: a statistics stage" in capsys.readouterr().err


def test_a_low_bit_recipe_without_a_deploy_stage_is_told_what_that_costs(vit: Plan) -> None:
    assert "{kind: deploy}" in unlearned_biases(vit, ["quantized"])
    assert unlearned_biases(vit, ["quantized", "deploy"]) == ""
