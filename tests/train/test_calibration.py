"""The calibration stage: the network as it is, quantized on images; no weight moves and no step is made."""

from pathlib import Path

import pytest
import torch

from saq_qat.data.batches import train_batches
from saq_qat.data.open import open_data
from saq_qat.models.build import build_model
from saq_qat.quant.network import calibrate, quantize
from saq_qat.recipe.load import parse_recipe
from saq_qat.recipe.schema import Recipe
from saq_qat.train.choose import choose_checkpoint
from saq_qat.train.log import read_log
from saq_qat.train.progress import Progress
from saq_qat.train.restore import restore
from saq_qat.train.run import run_training

RECIPE = """
version: 1
name: calibrated
seed: 3
model: {name: "tests.train.small_network:SmallNetwork"}
data: {kind: digits, image_size: 8, train_limit: 64, val_limit: 40}
quant: {weight: {bits: 8}, activation: {bits: 8}, calibration_batches: 2}
train: {batch_size: 16, stages: []}
"""


def recipe(*overrides: str) -> Recipe:
    return parse_recipe(RECIPE, "calibrated", overrides)


def test_a_calibrated_network_has_the_weights_it_began_with_and_what_images_say_of_the_rest(
    tmp_path: Path,
) -> None:
    own, seen = recipe(), list[Progress]()
    result = run_training(own, tmp_path / "run", on_progress=seen.append)
    images = open_data(own.data, own.seed)
    torch.manual_seed(own.seed)
    network = build_model(own.model, len(images.classes))
    assert own.quant is not None
    expected, _ = quantize(network, own.quant, own.deploy.targets, image=(3, 8, 8))
    first = zip(range(2), train_batches(images, batch_size=16, seed=own.seed, epoch=0), strict=False)
    calibrate(expected, [batch for _, (batch, _labels) in first])

    found = restore(tmp_path / "run").network.state_dict()
    assert found.keys() == expected.state_dict().keys()
    assert all(torch.equal(found[name], value) for name, value in expected.state_dict().items())
    assert (result.steps, result.deploy_top1 is not None) == (0, True)
    assert [(s.stage, s.batches, s.top1) for s in seen] == [("calibration", 2, result.top1)]
    (epoch,) = [line for line in read_log(tmp_path / "run/log.jsonl") if line["event"] == "epoch"]
    assert (epoch["stage"], epoch["loss"], epoch["top1"]) == ("calibration", None, result.top1)


def test_what_was_calibrated_is_best_and_last_alike(tmp_path: Path) -> None:
    run_training(recipe(), tmp_path / "run")
    choice = choose_checkpoint(tmp_path / "run")
    assert (choice.taken.name, choice.taken.stage, choice.note) == ("best", "calibration", "")
    assert choice.other is not None and choice.other.sha256 == choice.taken.sha256


def test_a_finished_calibration_resumes_to_itself(tmp_path: Path) -> None:
    first = run_training(recipe(), tmp_path / "run")
    again = run_training(recipe(), tmp_path / "run", resume=True)
    assert (again.top1, again.deploy_top1, again.steps) == (first.top1, first.deploy_top1, 0)


@pytest.mark.parametrize(
    ("stages", "forms", "steps"),
    [
        ("[{kind: float, epochs: 1, lr: 0.05}, {kind: calibration}]", ["float", "quantized"], 4),
        ("[{kind: calibration}, {kind: quantized, epochs: 1, lr: 0.01}]", ["quantized", "quantized"], 4),
        ("[{kind: calibration}, {kind: deploy, epochs: 1, lr: 0.01}]", ["quantized", "deploy"], 4),
        ("[{kind: calibration}, {kind: statistics, batches: 2}]", ["quantized", "quantized"], 0),
    ],
)
def test_it_stands_where_quantization_begins(
    stages: str, forms: list[str], steps: int, tmp_path: Path
) -> None:
    result = run_training(recipe(f"train.stages={stages}", "train.optimizer={kind: sgd}"), tmp_path / "run")
    log = [line for line in read_log(tmp_path / "run/log.jsonl") if line["event"] == "epoch"]
    assert ([line["form"] for line in log], result.steps) == (forms, steps)
