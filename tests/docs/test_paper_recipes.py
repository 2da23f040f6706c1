"""The paper's tables as recipes: settings are the paper's, and documents say what the recipes do."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from saq_qat.analysis.study.arms import resolve_arms
from saq_qat.analysis.study.jobs import Job
from saq_qat.analysis.study.schema import load_study
from saq_qat.models.build import build_model
from saq_qat.recipe.load import load_recipe
from saq_qat.recipe.schema import ImageFolder, Model, QuantizedStage, Recipe, Saq, Sgd
from tests.docs.estimates import Network, estimate
from tests.docs.paper_tables import CONFIGS, IMAGENET, TRAINING_IMAGES, TRANSFER, networks, rows

SECTION_5 = {  # network: optimizer, learning rate, epochs, batch
    "resnet18": ("sgd", 0.02, 90, 512),
    "resnet34": ("sgd", 0.02, 90, 512),
    "resnet50": ("sgd", 0.02, 90, 512),
    "mobilenet_v2": ("sgd", 0.02, 140, 512),
    "vit_s32": ("adamw", 2e-4, 150, 1024),
    "vit_s16": ("adamw", 2e-4, 150, 1024),
    "vit_b32": ("adamw", 2e-4, 150, 1024),
    "vit_b16": ("adamw", 2e-4, 150, 1024),
}
DECAY = {("resnet18", 2): 2.5e-5, "resnet": 1e-4, "mobilenet_v2": 4e-5}
# Laid out like the paper's table, not one cell a line.
TABLE_A = {
    ("resnet18", 2): 0.30, ("resnet18", 4): 0.65, ("resnet34", 2): 0.65, ("resnet34", 4): 0.90,
    ("resnet50", 2): 0.65, ("resnet50", 4): 0.95, ("mobilenet_v2", 4): 0.40,
    ("vit_s32", 4): 0.01, ("vit_s16", 4): 0.01, ("vit_b32", 4): 0.01, ("vit_b16", 4): 0.01,
}  # fmt: skip  # one value a line is a page
MAIN = rows(IMAGENET, "recipe")
ARMS = rows(IMAGENET, "table")
MOVED = rows(TRANSFER, "recipe")
NETWORKS = networks()
IMAGES = {row["recipe"]: int(row["images"].replace(",", "")) for row in MOVED}


def recipe_of(row: dict[str, str], folder: str) -> Recipe:
    return load_recipe(CONFIGS / folder / f"{row['recipe']}.yaml")


def quantized(recipe: Recipe) -> QuantizedStage:
    (stage,) = (stage for stage in recipe.train.stages if isinstance(stage, QuantizedStage))
    return stage


def saq(recipe: Recipe) -> Saq:
    method = quantized(recipe).method
    assert isinstance(method, Saq)
    return method


def bits_of(recipe: Recipe) -> int:
    assert recipe.quant is not None and recipe.quant.weight.bits == recipe.quant.activation.bits
    return recipe.quant.weight.bits


def named(row: dict[str, str]) -> str:
    return row["recipe"]


def test_every_recipe_of_the_two_folders_has_its_row() -> None:
    listed = {f"imagenet/{row['recipe']}" for row in MAIN} | {f"transfer/{row['recipe']}" for row in MOVED}
    found = {
        f"{path.parent.name}/{path.stem}"
        for path in [*(CONFIGS / "imagenet").glob("*.yaml"), *(CONFIGS / "transfer").glob("resnet50-*.yaml")]
    }
    assert found - {"imagenet/resnet18-fp32-sam"} == listed
    quoted = {(row["study"], row["arm"]) for row in ARMS} | {
        (row["study"], arm) for row in MOVED for arm in ("sgd", "saq")
    }
    files = [
        path
        for pattern in ("imagenet-*", "transfer-*")
        for path in (CONFIGS / "studies").glob(f"{pattern}.yaml")
    ]
    assert {(path.stem, arm) for path in files for arm in load_study(path).arms} == quoted


@pytest.mark.parametrize("row", MAIN, ids=named)
def test_a_recipe_has_the_settings_of_the_paper(row: dict[str, str]) -> None:
    recipe = recipe_of(row, "imagenet")
    network, bits, train = recipe.model.name, bits_of(recipe), recipe.train
    kind, rate, epochs, batch = SECTION_5[network]
    stage, method = quantized(recipe), saq(recipe)
    found = (train.optimizer.kind, stage.lr, stage.epochs, train.batch_size, train.micro_batch_size)
    assert found == (kind, rate, epochs, batch, 128)
    assert (method.case, method.objective, method.perturb) == (3, "sum", ("weight",))
    assert method.efficient is not None and (method.efficient.tau, method.efficient.beta) == (4, 0.7)
    assert (bits != 4 and network == "mobilenet_v2") or bits == 3 or method.rho == TABLE_A[network, bits]
    data = recipe.data
    assert isinstance(data, ImageFolder)
    assert (data.image_size, data.augmentation) == (224, "resized_crop_flip")
    assert stage.warmup_epochs == 0 and train.label_smoothing == 0 and train.precision == "float32"
    assert train.optimizer.clip_level_lr == 1
    assert (train.teacher is not None) == (network == "mobilenet_v2")
    if isinstance(train.optimizer, Sgd):
        assert (train.optimizer.momentum, train.optimizer.nesterov) == (0.9, False)
        of_network = DECAY.get(network, DECAY["resnet"])
        assert train.optimizer.weight_decay == DECAY.get((network, bits), of_network)
    assert recipe.quant is not None and recipe.quant.edge_bits == 8
    start = "least_squares" if network.startswith("vit") else "ones"
    assert recipe.quant.weight.initialise == start
    assert network == "mobilenet_v2" or recipe.quant.activation.initialise == start
    assert network != "mobilenet_v2" or recipe.quant.activation.offset == "signed"


@pytest.mark.parametrize("row", MOVED, ids=named)
def test_a_transfer_has_the_settings_of_the_paper(row: dict[str, str]) -> None:
    recipe = recipe_of(row, "transfer")
    stage, train = quantized(recipe), recipe.train
    assert isinstance(train.optimizer, Sgd)
    assert (recipe.model.name, bits_of(recipe), stage.method.kind) == ("resnet50", 4, "plain")
    assert (stage.epochs, stage.lr, stage.warmup_epochs, train.batch_size) == (100, 0.01, 0, 64)
    assert (train.optimizer.momentum, train.optimizer.nesterov, train.optimizer.weight_decay) == (
        0.9,
        False,
        0,
    )
    assert load_study(CONFIGS / "studies" / f"{row['study']}.yaml").seeds == (0, 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("row", "folder"), [(row, "imagenet") for row in MAIN] + [(row, "transfer") for row in MOVED]
)
def test_a_row_says_what_its_recipe_does(row: dict[str, str], folder: str) -> None:
    recipe = recipe_of(row, folder)
    stage = quantized(recipe)
    assert row["W/A"] == f"{bits_of(recipe)}/{bits_of(recipe)}"
    said = [float(row[column]) for column in ("epochs", "batch", "lr", "weight decay")]
    assert said == [stage.epochs, recipe.train.batch_size, stage.lr, recipe.train.optimizer.weight_decay]
    if folder == "imagenet":
        assert float(row["rho"]) == saq(recipe).rho
        found = estimate(recipe, TRAINING_IMAGES, 8, NETWORKS)
    else:
        found = estimate(recipe, IMAGES[row["recipe"]], 1, NETWORKS)
    assert (row["hours"], row["GB"]) == (found.hours_text, found.gigabytes_text)


@pytest.mark.parametrize("path", sorted((CONFIGS / "imagenet").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_head_has_the_command_for_eight_gpus_and_the_same_estimate(path: Path) -> None:
    recipe, text = load_recipe(path), path.read_text(encoding="utf-8")
    command = "torchrun --standalone --nproc-per-node 8 --no-python saq-qat train"
    assert f"#   {command} configs/imagenet/{path.name} " in text
    share = recipe.train.batch_size // 8
    assert share == recipe.train.micro_batch_size or f"train.micro_batch_size={share}" in text
    assert load_recipe(path, ["data.kind=parquet"]).data.kind == "parquet"
    found = estimate(recipe, TRAINING_IMAGES, 8, NETWORKS)
    assert f"{found.hours_text} hours and {found.gigabytes_text} GB each, on paper" in text


@pytest.mark.parametrize("row", MOVED, ids=named)
def test_a_head_of_a_transfer_has_the_estimate_of_its_row(row: dict[str, str]) -> None:
    text = (CONFIGS / "transfer" / f"{row['recipe']}.yaml").read_text(encoding="utf-8")
    assert f"{row['hours']} hours and {row['GB']} GB, on paper" in text


@pytest.mark.parametrize("row", ARMS, ids=lambda row: f"{row['study']}-{row['arm']}")
def test_the_command_of_an_arm_trains_what_the_study_does(row: dict[str, str]) -> None:
    path = CONFIGS / "studies" / f"{row['study']}.yaml"
    arm = resolve_arms(load_study(path), path.parent)[row["arm"]]
    overrides = shlex.split(row["in place of the base recipe's"].strip("`"))
    assert load_recipe(arm.path, overrides) == arm.recipe
    # What the study takes for its own run: the example of the document names runs so.
    job = Job(arm, 0, Path("runs"), load_study(path).measure, 1)
    assert load_recipe(arm.path, [*overrides, f"name={row['arm']}-seed0"]) == job.recipe
    found = [estimate(arm.recipe, TRAINING_IMAGES, gpus, NETWORKS).hours_text for gpus in (8, 1)]
    assert [row["hours"], row["on one"]] == found


class Reads(TorchDispatchMode):  # type: ignore[no-untyped-call]  # of torch, which leaves it untyped
    """Counts the layers and products of a forward pass, and the elements that they read beside weights."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # the same
        self.layers = self.inputs = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        aten = torch.ops.aten
        read = {
            aten.convolution.default: args[:1],
            aten.mm.default: args[:1],
            aten.addmm.default: args[1:2],
            aten.bmm.default: args[:2],
        }.get(func, ())
        self.layers += bool(read)
        self.inputs += sum(tensor.numel() for tensor in read)
        return func(*args, **(kwargs or {}))


def counted(name: str) -> Network:
    # Transformers are compared with their separated form while they are built, which takes numbers.
    with torch.device("cpu" if name.startswith("vit") else "meta"):
        network = build_model(Model(name=name), 1000).eval().to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as operations, Reads() as reads:
        network(torch.empty(1, 3, 224, 224, device="meta"))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Network(operations.get_total_flops() / 2, reads.inputs, reads.layers, parameters)


@pytest.mark.parametrize(
    "name",
    [
        # Seconds and up to three hundred megabytes of random weights each.
        pytest.param(name, marks=pytest.mark.slow) if name in ("vit_s16", "vit_b32", "vit_b16") else name
        for name in NETWORKS
    ],
)
def test_sizes_of_networks_are_what_they_are_said_to_be(name: str) -> None:
    if name.startswith("vit"):
        pytest.importorskip("timm", reason="needs the extra vit")
    found, said = counted(name), NETWORKS[name]
    assert found.layers == said.layers
    assert found.multiply_adds == pytest.approx(said.multiply_adds, abs=0.5e7)
    assert found.inputs == pytest.approx(said.inputs, abs=0.5e4)
    assert found.parameters == pytest.approx(said.parameters, abs=0.5e5)
