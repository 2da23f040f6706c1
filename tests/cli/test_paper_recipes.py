"""The paper's tables as recipes: each passes `check`, and a step of each of its stages runs, in small."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from saq_qat.analysis.study.arms import resolve_arms
from saq_qat.analysis.study.schema import load_study
from saq_qat.models.build import build_model
from saq_qat.recipe.load import load_recipe
from saq_qat.recipe.schema import Model, Recipe, StatisticsStage
from saq_qat.recipe.schema.base import Scalar
from saq_qat.train.forms import network_in_form
from saq_qat.train.log import read_log
from tests.docs.paper_tables import stand_in

SaqQat = Callable[..., int]

CONFIGS = Path(__file__).parents[2] / "configs"
CLASSES = 5
PUBLISHED_CLASSES = 1000
SIDE = 32
NARROW: dict[str, dict[str, Scalar]] = {
    "vit": {"img_size": SIDE, "depth": 1, "embed_dim": 48, "num_heads": 3},
    "mobilenet_v2": {"width_mult": 0.25},
    "resnet50": {"width_per_group": 16},
}


@dataclass(frozen=True)
class Row:
    """One row of a table: a recipe, and what an arm of a study sets in it."""

    name: str
    path: Path
    overrides: tuple[str, ...] = ()

    @property
    def recipe(self) -> Recipe:
        return load_recipe(self.path, self.overrides)


RECIPES = [
    Row(f"{path.parent.name}/{path.stem}", path)
    for path in [
        *sorted((CONFIGS / "imagenet").glob("*.yaml")),
        *sorted((CONFIGS / "transfer").glob("resnet50-*.yaml")),
    ]
]
ARMS = [
    Row(f"{path.stem}/{arm.name}", arm.path, arm.overrides)
    for path in sorted((CONFIGS / "studies").glob("imagenet-*.yaml"))
    for arm in resolve_arms(load_study(path), path.parent).values()
]
# The paper's own network, as README.md beside the recipes says how to get it.
PAPERS_OWN = Row(
    "papers-own-network",
    CONFIGS / "imagenet" / "resnet18-w4a4-saq.yaml",
    ("quant.placement=paper", "quant.grid=paper", "quant.quantize_image=false", "deploy.targets=[]"),
)
# One that is deployed and one that is not; all others are planned, which is what sizes and bits decide.
CHECKED = ("imagenet/resnet18-w2a2-saq", "papers-own-network")
# One for each kind of network and training.
TRAINED = (
    *("imagenet/resnet18-w2a2-saq", "imagenet/mobilenetv2-w4a4-saq", "imagenet/vit_s32-w4a4-saq"),
    "imagenet/resnet18-fp32-sam",
)


def with_slow(rows: list[Row], quick: tuple[str, ...]) -> list[object]:
    """Quarters of a minute each, most of it export's rehearsal: all rows but the quick ones are slow."""
    assert {row.name for row in rows} >= set(quick)
    return [
        # Why some are slow stands above.
        pytest.param(row, id=row.name, marks=() if row.name in quick else pytest.mark.slow)
        for row in rows
    ]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of files of weights, each made once."""
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def ten_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five classes with one photo-like image each to train and to judge on."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in range(CLASSES):
            folder = root / split / f"n{label:08d}"
            folder.mkdir(parents=True)
            coarse = random.integers(0, 256, (6, 8, 3), np.uint8)
            Image.fromarray(coarse).resize((60, 45), Image.Resampling.BICUBIC).save(folder / f"{label}.JPEG")
    return root


def weights_of(name: str, arguments: dict[str, Scalar], classes: int, folder: Path) -> Path:
    """Random weights of a network of so many classes, as a file that `model.pretrained` takes."""
    path = folder / f"{name.rpartition(':')[2]}-{classes}.pth"
    if not path.exists():
        torch.manual_seed(0)
        network = build_model(Model(name=name, arguments=arguments), classes)
        torch.save(network.state_dict(), path)
    return path


def quantized_weights(recipe: Recipe, folder: Path) -> Path:
    """Random weights of a quantized network of ImageNet's classes, as its checkpoint holds them."""
    path = folder / "quantized.safetensors"
    if not path.exists():
        network, _ = network_in_form(recipe, PUBLISHED_CLASSES, "quantized")
        save_file(network.state_dict(), path)
    return path


def small(row: Row, images: Path, folder: Path) -> list[str]:
    """The row's recipe on ten images, by what README beside it says to set, from weights of 1000 classes; at
    32 pixels, and narrow where the network can be."""
    recipe = row.recipe
    values = [*row.overrides, "data.kind=imagefolder", f"data.root={images}", *stand_in()]
    values += [f"data.image_size={SIDE}", "data.resize=36", "data.workers=0"]
    if recipe.quant is not None:
        values.append("quant.calibration_batches=1")
    arguments = next((given for name, given in NARROW.items() if recipe.model.name.startswith(name)), {})
    if arguments:
        values.append(f"model.arguments={json.dumps(arguments)}")
    if recipe.model.pretrained is not None and recipe.model.pretrained_strict:
        file = weights_of(recipe.model.name, arguments, PUBLISHED_CLASSES, folder)
        values.append(f"model.pretrained={file}")
    elif recipe.model.pretrained is not None:
        values.append(f"model.pretrained={quantized_weights(load_recipe(row.path, values), folder)}")
    if recipe.train.teacher is not None:
        teacher = "torchvision.models:resnet18"
        values += [
            f"train.teacher.model.name={teacher}",
            f"train.teacher.model.pretrained={weights_of(teacher, {}, CLASSES, folder)}",
        ]
    return values


@pytest.mark.parametrize("row", with_slow([*RECIPES, PAPERS_OWN], CHECKED))
def test_check_passes_on_ten_images(
    saq_qat: SaqQat, ten_images: Path, weights: Path, capsys: pytest.CaptureFixture[str], row: Row
) -> None:
    if "vit" in row.name:
        pytest.importorskip("timm", reason="needs the extra vit")
    assert saq_qat("check", str(row.path), *small(row, ten_images, weights)) == 0, capsys.readouterr().err


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in RECIPES])
def test_all_that_check_does_before_exports_rehearsal_passes(
    saq_qat: SaqQat,
    ten_images: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    row: Row,
) -> None:
    """Images, weights, the plan with every layer as integers, and its rules; the rehearsal is slow above."""
    if "vit" in row.name:
        pytest.importorskip("timm", reason="needs the extra vit")
    monkeypatch.setattr("saq_qat.cli.check.deployable", lambda *_: ())
    assert saq_qat("check", str(row.path), *small(row, ten_images, weights), "--json") == 0
    document = json.loads(capsys.readouterr().out)
    lines = document["planned_integers"]
    targets = row.recipe.deploy.targets if row.recipe.quant is not None else ()
    assert len(lines) == len(targets)
    for line, target in zip(lines, targets, strict=True):
        planned, of = re.findall(r"(\d+)/(\d+)", line)[0]
        # TensorRT runs both products of an attention in float, as README beside the recipes says.
        assert target in line and int(of) - int(planned) == (
            2 if "vit" in row.name and target == "tensorrt" else 0
        )
    # What the paper does not quantize starts at the least squared error, whatever the inputs of layers do.
    tensors = document["plan"]["tensors"] if row.recipe.quant is not None else ()
    beyond = {tensor["initialise"] for tensor in tensors if tensor["role"] not in ("input", "operand")}
    assert beyond <= {"mse"}


@pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in ARMS])
def test_an_arm_of_a_study_has_the_plan_of_its_recipe(row: Row) -> None:
    """So `check` says of the arm what it says of the recipe: methods and weights are no part of a plan."""
    arm, base = row.recipe, load_recipe(row.path)
    assert (arm.data, arm.quant, arm.deploy) == (base.data, base.quant, base.deploy)
    assert arm.model.model_copy(update={"pretrained": base.model.pretrained}) == base.model
    assert [stage.kind for stage in arm.train.stages] == [stage.kind for stage in base.train.stages]


@pytest.mark.filterwarnings("ignore:train.teacher")  # of random weights, it is right by guessing
@pytest.mark.parametrize("row", with_slow([*RECIPES, PAPERS_OWN, *ARMS], TRAINED))
def test_a_step_of_every_stage_runs(
    saq_qat: SaqQat,
    ten_images: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    row: Row,
) -> None:
    """The rehearsal that training begins with is what the test above runs."""
    if "vit" in row.name:
        pytest.importorskip("timm", reason="needs the extra vit")
    monkeypatch.setattr("saq_qat.cli.train.deployable", lambda *_: ())
    values = [*small(row, ten_images, weights), "data.train_limit=2", "train.batch_size=2"]
    values.append("train.micro_batch_size=2")
    stages = row.recipe.train.stages
    for index, stage in enumerate(stages):
        if isinstance(stage, StatisticsStage):
            values.append(f"train.stages.{index}.batches=1")
        else:
            values += [f"train.stages.{index}.epochs=1", f"train.stages.{index}.warmup_epochs=0"]
    runs = tmp_path / "runs"
    assert saq_qat("train", str(row.path), *values, "--runs", str(runs)) == 0
    (log,) = runs.glob("*/*/log.jsonl")
    epochs = [event for event in read_log(log) if event["event"] == "epoch"]
    assert [event["stage"] for event in epochs] == [stage.kind for stage in stages]
