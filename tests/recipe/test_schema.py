"""Rules between fields that are each right by themselves, with the place of the field to mend."""

import math
import re

import pytest
from pydantic import ValidationError

from saq_qat.errors import RecipeError
from saq_qat.recipe.load import dump_recipe, parse_recipe
from saq_qat.recipe.schema import CalibrationStage, DeployStage, Plain, Recipe, Sgd
from saq_qat_runtime.bundle.records import DEVIATIONS, LARGEST_MEAN, Preprocessing
from saq_qat_runtime.errors import ModelError

FLOAT = "{kind: float, epochs: 1, lr: 1}"
QUANTIZED = "{kind: quantized, epochs: 1, lr: 1}"
DEPLOY = "{kind: deploy, epochs: 1, lr: 1}"
STATISTICS = "{kind: statistics, batches: 10}"
CALIBRATION = "{kind: calibration}"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([f"train.stages=[{QUANTIZED}, {FLOAT}]"], "train.stages.1: a float stage cannot follow a quantized"),
        ([f"train.stages=[{DEPLOY}, {QUANTIZED}]"], "train.stages.1: a quantized stage cannot follow"),
        ([f"train.stages=[{DEPLOY}, {DEPLOY}]"], "train.stages.1: there can be only one deploy stage"),
        (
            [f"train.stages=[{STATISTICS}, {QUANTIZED}]"],
            "train.stages.0: a statistics stage needs a float, calibration or",
        ),
        ([f"train.stages=[{DEPLOY}, {STATISTICS}]"], "train.stages.1: a statistics stage cannot follow"),
        (
            [f"train.stages=[{QUANTIZED}, {STATISTICS}, {FLOAT}]"],
            "train.stages.2: a float stage cannot follow",
        ),
        ([f"train.stages=[{FLOAT}, {STATISTICS}]"], "quant: nothing is quantized, because no stage is"),
        (["train.stages.1={kind: statistics, epochs: 1}"], "train.stages.1.epochs: unknown key"),
        (["train.teacher={}"], "train.teacher.run: a teacher is a run (run) or a network"),
        (["train.teacher={run: a, model: {name: b, pretrained: c}}"], "train.teacher.model: the teacher is"),
        (["train.teacher={model: {name: b}}"], "train.teacher.model.pretrained: a teacher needs trained"),
        (
            ["train.teacher={model: {name: b, pretrained: c, pretrained_strict: false}}"],
            "train.teacher.model.pretrained_strict: must be true",
        ),
        (
            ["train.teacher={model: {name: b, pretrained: c}, checkpoint: best}"],
            "train.teacher.checkpoint: names a checkpoint of run",
        ),
        (["train.mixing={mixup: 1e-300}"], "train.mixing.mixup: must be at least 0.05 (got 1e-300)"),
        (["train.teacher={run: a, weight: 0}"], "train.teacher.weight: must be greater than 0 (got 0)"),
        (
            ["train.teacher={run: a, label_weight: 0}", "train.label_smoothing=0.1"],
            "train.label_smoothing: smooths labels that teacher.label_weight = 0 leaves out",
        ),
        (["quant=null", "train.stages=[]"], "train.stages.0: a calibration stage needs the section quant"),
        (
            [f"train.stages=[{QUANTIZED}, {CALIBRATION}]"],
            "train.stages.1: a calibration stage cannot follow a quantized stage",
        ),
        (
            [f"train.stages=[{DEPLOY}, {CALIBRATION}]"],
            "train.stages.1: a calibration stage cannot follow a deploy stage",
        ),
        (["quant=null"], "train.stages.1: a quantized stage needs the section quant"),
        (["quant=null", f"train.stages=[{DEPLOY}]"], "train.stages.0: a deploy stage needs"),
        ([f"train.stages=[{FLOAT}]"], "quant: nothing is quantized, because no stage is"),
        (["train.micro_batch_size=48"], "train.micro_batch_size: must divide batch_size = 64 (got 48)"),
        (["train.micro_batch_size=128"], "train.micro_batch_size: must divide batch_size = 64 (got 128)"),
        (["train.stages.0.warmup_epochs=2.5"], "train.stages.0.warmup_epochs: must be at most epochs = 2"),
        (["train.stages.0.method.kind=saq"], "train.stages.0.method.kind: must be 'plain' or 'sam'"),
        (["train.stages.1.method.efficient={tau: 1}"], "train.stages.1.method.efficient.tau: must be"),
        (
            ["train.stages.1.method.efficient={}", "train.stages.1.method.objective=pql"],
            "train.stages.1.method.efficient: efficient training stands in for g_s in a sum",
        ),
        (["train.stages.1.method.case2_space=raw"], "train.stages.1.method.case2_space: 'raw' has a meaning"),
        (["train.stages.1.method.perturb=[bias, bias]"], "train.stages.1.method.perturb: names a part twice"),
        (["train.stages.1.method.perturb=[]"], "train.stages.1.method.perturb: must have at least 1 item(s)"),
        (["train.optimizer.momentum=0", "train.optimizer.nesterov=true"], "train.optimizer.nesterov: "),
        (["data.mean=[0.5]", "data.std=[1, 1, 1]"], "data.std: mean and std must have one number"),
        (["data.std=[0]"], "data.std.0: must be at least 1e-06 (got 0)"),
        (
            ["data={kind: imagefolder, root: x, image_size: 224, resize: 200}"],
            "data.resize: the centre crop of image_size 224 needs a short side of at least 224 (got 200)",
        ),
        (["quant.rescale_std=true", "quant.normalize_weights=false"], "quant.rescale_std: there is no"),
        (["quant.overrides=[{match: a}]"], "quant.overrides.0.match: the override changes nothing"),
        (["quant.weight.bits=1"], "quant.weight.bits: must be at least 2 (got 1)"),
        (
            ["quant.weight.kind=lsq+"],
            "quant.weight.kind: must be 'saq', 'symmetric', 'lsq' or 'dorefa' (got 'lsq+')",
        ),
        (["deploy.targets=[onnxruntime, onnxruntime]"], "deploy.targets: names a target twice"),
        (["name=../up"], "name: must match"),
    ],
)
def test_a_broken_rule_names_its_field(text: str, overrides: list[str], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "r", overrides)
    lines = str(caught.value).splitlines()
    assert len(lines) == 1
    assert message in lines[0]


@pytest.mark.parametrize(
    "key, limit, beyond",
    [
        ("mean", LARGEST_MEAN, math.inf),
        ("mean", -LARGEST_MEAN, -math.inf),
        ("std", DEVIATIONS[0], 0.0),
        ("std", DEVIATIONS[1], math.inf),
    ],
)
def test_mean_and_std_have_the_limits_of_a_bundle(text: str, key: str, limit: float, beyond: float) -> None:
    given: dict[str, tuple[float, ...]] = {"mean": (0.0,) * 3, "std": (1.0,) * 3, key: (limit,) * 3}
    data = parse_recipe(text, "r", [f"data.{key}={list(given[key])}"]).data
    assert Preprocessing(8, None, 3, **given) == Preprocessing(
        8, None, 3, **given | {key: getattr(data, key)}
    )
    outside = (math.nextafter(limit, beyond),) * 3
    with pytest.raises(RecipeError, match=rf"data\.{key}\.0: must be at"):
        parse_recipe(text, "r", [f"data.{key}={list(outside)}"])
    with pytest.raises(ModelError, match=f"^{key} must lie in"):
        Preprocessing(8, None, 3, **given | {key: outside})


def test_broken_rules_of_different_sections_come_together(text: str) -> None:
    overrides = ["train.stages.0.warmup_epochs=9", "train.stages.1.method.case2_space=raw", "data.mean=[1]"]
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, "r", [*overrides, "data.std=[1, 1]"])
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize(
    "overrides",
    [
        [f"train.stages=[{FLOAT}, {FLOAT}, {QUANTIZED}, {QUANTIZED}, {DEPLOY}]"],
        [f"train.stages=[{DEPLOY}]"],
        [f"train.stages=[{FLOAT}, {STATISTICS}, {QUANTIZED}, {QUANTIZED}, {STATISTICS}, {DEPLOY}]"],
        ["quant=null", f"train.stages=[{FLOAT}, {{kind: statistics}}]"],
        ["train.teacher={run: a, checkpoint: best, label_weight: 0, temperature: 4}"],
        ["train.teacher={model: {name: resnet50, pretrained: a.pth}, mode: train, weight: 0.5}"],
        ["train.micro_batch_size=32"],
        ["train.stages.0.warmup_epochs=2"],
        ["train.stages.1.method.case=2", "train.stages.1.method.case2_space=raw"],
        ["train.stages.1.method.efficient={}", "train.stages.1.method.objective=mean"],
        ["quant.activation.kind=lsq", "quant.activation.offset=bounded"],
        ["quant=null", f"train.stages=[{FLOAT}]"],
        [f"train.stages=[{FLOAT}, {CALIBRATION}, {STATISTICS}, {DEPLOY}]"],
        [f"train.stages=[{CALIBRATION}, {QUANTIZED}]"],
    ],
)
def test_what_the_rules_allow_is_accepted(text: str, overrides: list[str]) -> None:
    parse_recipe(text, "r", overrides)


def test_no_stages_are_one_calibration_stage_which_needs_no_optimizer(text: str) -> None:
    without = re.sub(r"  optimizer:\n(    .*\n)+", "", text)
    assert "optimizer" not in without
    recipe = parse_recipe(without, "r", ["train.stages=[]"])
    assert recipe.train.stages == (CalibrationStage(kind="calibration"),)
    assert parse_recipe(dump_recipe(recipe), "dumped") == recipe
    with pytest.raises(RecipeError, match=r"train\.optimizer: a stage that trains needs an optimizer"):
        parse_recipe(without, "r")


def test_rules_hold_for_recipes_made_in_python() -> None:
    with pytest.raises(ValidationError, match="warmup_epochs: must be at most epochs = 1"):
        DeployStage(kind="deploy", epochs=1, lr=1.0, warmup_epochs=2.0)


def test_recipes_do_not_change(text: str) -> None:
    recipe = parse_recipe(text, "r")
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 1
    assert Recipe.model_validate(recipe.model_dump()) == recipe
    assert (Sgd(kind="sgd").momentum, Plain(kind="plain").kind) == (0.9, "plain")
