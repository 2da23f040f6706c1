"""What the paper's recipes start from, as documents say it: published weights, and trainings of their own."""

import re
import shlex
from pathlib import Path

import pytest
from torchvision.models import get_weight

from saq_qat.analysis.study.arms import resolve_arms
from saq_qat.analysis.study.schema import load_study
from saq_qat.recipe.load import load_recipe
from saq_qat.recipe.schema import Recipe
from tests.docs.estimates import estimate
from tests.docs.paper_tables import CONFIGS, IMAGENET, TRAINING_IMAGES, TRANSFER, commands, networks, rows

PUBLISHED = rows(IMAGENET, "network")
TRAINED = rows(IMAGENET, "weights")
MAIN = {row["recipe"]: row for row in rows(IMAGENET, "recipe")}
NETWORKS = networks()


def name_of(row: dict[str, str]) -> str:
    return row["weights"].strip("`")


def recipe_of(network: str) -> Path:
    return CONFIGS / "imagenet" / f"{network.replace('mobilenet_v2', 'mobilenetv2')}-w4a4-saq.yaml"


def test_every_network_has_published_weights() -> None:
    quantized = (name for name in MAIN if name.endswith("-w4a4-saq"))
    assert {recipe_of(row["network"]).stem for row in PUBLISHED} == set(quantized)


@pytest.mark.parametrize("row", PUBLISHED, ids=name_of)
def test_a_row_of_weights_has_the_papers_numbers_as_the_main_table_has_them(row: dict[str, str]) -> None:
    of_network = MAIN[recipe_of(row["network"]).stem]
    assert (row["paper's start"], row["its W4A4"]) == (of_network["fp32"], of_network["top-1"])


@pytest.mark.parametrize(
    "row", [row for row in PUBLISHED if row["weights"].endswith("IMAGENET1K_V1`")], ids=name_of
)
def test_torchvision_reports_the_top_1_of_its_weights(row: dict[str, str]) -> None:
    found = get_weight(name_of(row)).meta["_metrics"]["ImageNet-1K"]["acc@1"]
    assert f"{found:.2f}" == row["top-1"]


@pytest.mark.parametrize("row", [row for row in PUBLISHED if "vit" in row["network"]], ids=name_of)
def test_weights_of_timm_exist_and_take_the_recipes_images(row: dict[str, str]) -> None:
    timm = pytest.importorskip("timm", reason="needs the extra vit")
    name, recipe = name_of(row), load_recipe(recipe_of(row["network"]))
    assert recipe.model.pretrained is not None
    assert name.partition(".")[0] == Path(recipe.model.pretrained).stem
    assert name in timm.list_pretrained(name)
    config = timm.get_pretrained_cfg(name)
    taken = (config.num_classes, config.input_size, config.mean, config.std)
    side = recipe.data.image_size
    assert taken == (1000, (3, side, side), recipe.data.mean, recipe.data.std)


def test_published_vits_are_as_much_better_than_the_papers_starts_as_is_said() -> None:
    vits = [row for row in PUBLISHED if "vit" in row["network"]]
    better = {name_of(row): float(row["top-1"]) - float(row["paper's start"]) for row in vits}
    assert min(better.values()) > 0
    large = [row for row in vits if "in21k" in row["weights"]]
    assert all(float(row["top-1"]) > float(row["its W4A4"]) for row in large)
    most = [better[name_of(row)] for row in large]
    assert f"`in21k`) by {min(most):.1f} to {max(most):.0f} points" in IMAGENET.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", sorted((CONFIGS / "imagenet").glob("vit*.yaml")), ids=lambda path: path.stem)
def test_a_head_of_a_vit_names_weights_and_both_starts(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = re.search(r"timm's (\S+)\n# has top-1 (\S+) %, the paper's start (\S+) %", text)
    said = {(name_of(row), row["top-1"], row["paper's start"]) for row in PUBLISHED}
    assert found is not None and found.groups() in said


@pytest.mark.parametrize("row", TRAINED, ids=name_of)
def test_a_network_in_full_precision_takes_the_hours_of_its_row(row: dict[str, str]) -> None:
    overrides = shlex.split(row["in place of the recipe's"].strip("`"))
    recipe = load_recipe(CONFIGS / "imagenet" / f"{row['recipe']}.yaml", overrides)
    eight, one = (estimate(recipe, TRAINING_IMAGES, gpus, NETWORKS) for gpus in (8, 1))
    assert (row["hours"], row["on one"], row["GB"]) == (
        eight.hours_text,
        one.hours_text,
        eight.gigabytes_text,
    )
    (stage,) = recipe.train.stages
    assert stage.kind == "float"
    assert (stage.method.kind == "sam") == ("-sam." in row["weights"])


@pytest.mark.parametrize("bits", ["w4a4", "w2a2"])
def test_arms_of_table_7_start_from_one_training_with_and_without_sam(bits: str) -> None:
    path = CONFIGS / "studies" / f"imagenet-resnet18-{bits}-sam.yaml"
    starts = {
        name: arm.recipe.model.pretrained for name, arm in resolve_arms(load_study(path), path.parent).items()
    }
    sam, plain = (name_of(row) for row in TRAINED)
    assert starts == {"sgd": plain, "sam-to-sgd": sam, "saq": plain}


def transferred() -> list[Recipe]:
    """ImageNet's networks that transfer starts from, by the commands of the document."""
    path = recipe_of("resnet50")
    lines = [words for words in commands(TRANSFER) if words[:2] == ["train", f"configs/imagenet/{path.name}"]]
    return [load_recipe(path, [word for word in words[2:] if "=" in word]) for words in lines]


def test_transfer_says_what_its_two_networks_cost_first() -> None:
    saq, sgd = transferred()
    text = " ".join(TRANSFER.read_text(encoding="utf-8").split())
    (saq_8, saq_1), (sgd_8, sgd_1) = (
        [estimate(recipe, TRAINING_IMAGES, gpus, NETWORKS).hours_text for gpus in (8, 1)]
        for recipe in (saq, sgd)
    )
    assert (
        f"{saq_8} hours for SAQ and {sgd_8} hours for SGD on eight H200, {saq_1} and {sgd_1} on one" in text
    )
