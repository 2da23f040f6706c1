"""Training with a teacher: which ones are accepted, who they are, and going on with the same one."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from saq_qat.data.open import open_data
from saq_qat.errors import ArtifactError, RecipeError
from saq_qat.recipe.load import parse_recipe
from saq_qat.recipe.schema import Recipe
from saq_qat.train.log import read_log
from saq_qat.train.restore import restore
from saq_qat.train.run import run_training
from saq_qat.train.stop import TrainingStoppedError
from saq_qat.train.teacher import load_teacher
from tests.train.stopping import sigterm_at

DATA = "{kind: digits, image_size: 8, train_limit: 80, val_limit: 80}"
TEACHER = f"""
version: 1
name: teacher
model: {{name: "{__name__}:Linear"}}
data: {DATA}
train:
  batch_size: 16
  optimizer: {{kind: sgd}}
  stages: [{{kind: float, epochs: 6, lr: 0.05}}]
"""
PRECISION = "bfloat16" if torch.cpu.get_capabilities().get("avx512_bf16") else "float32"
"""What this CPU computes fast; a recipe that asks for more is refused."""
STUDENT = f"""
version: 1
name: student
model: {{name: "tests.train.small_network:SmallNetwork"}}
data: {DATA}
quant: {{weight: {{bits: 4}}, activation: {{bits: 4}}, calibration_batches: 1}}
train:
  batch_size: 16
  optimizer: {{kind: sgd}}
  precision: {PRECISION}
  label_smoothing: 0.1
  stages:
    - {{kind: float, epochs: 1, lr: 0.02}}
    - {{kind: quantized, epochs: 1, lr: 0.02, method: {{kind: saq, rho: 0.3, efficient: {{tau: 3}}}}}}
"""


class Linear(nn.Sequential):
    """Learns the digits in a second."""

    def __init__(self, num_classes: int, outputs: int | None = None) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3 * 8 * 8, outputs or num_classes))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "teacher"
    run_training(parse_recipe(TEACHER, "teacher"), folder)
    return folder


def student(teacher: Path, *overrides: str) -> Recipe:
    return parse_recipe(STUDENT, "student", [f"train.teacher.run={teacher}", *overrides])


@pytest.fixture(scope="module")
def taught(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "student"
    run_training(student(teacher), folder)
    return folder


def weights(folder: Path) -> list[bytes]:
    return [
        (folder / "checkpoints" / "last" / name).read_bytes()
        for name in ("model.safetensors", "optimizer.safetensors")
    ]


def load(recipe: Recipe) -> nn.Module:
    wanted = recipe.train.teacher
    assert wanted is not None
    images = open_data(recipe.data, recipe.seed)
    return load_teacher(wanted, images, torch.device("cpu")).distillation.teacher


def test_a_run_names_its_teacher_by_the_hash_of_its_weights(teacher: Path, taught: Path) -> None:
    hashes = json.loads((teacher / "checkpoints" / "last" / "sha256.json").read_text())
    facts = json.loads((taught / "env.json").read_text())
    assert facts["teacher"] == str(teacher)
    assert facts["teacher_sha256"] == hashes["model.safetensors"]
    (line,) = [line for line in read_log(taught / "log.jsonl") if line["event"] == "teacher"]
    assert line["top1"] == pytest.approx(restore_top1(teacher)) and line["top1"] > 50


def restore_top1(run: Path) -> float:
    return float(read_log(run / "log.jsonl")[-1]["top1"])


def test_the_teacher_moves_the_student_in_every_stage(teacher: Path, taught: Path, tmp_path: Path) -> None:
    run_training(parse_recipe(STUDENT, "student"), tmp_path)
    steps = [[x for x in read_log(run / "log.jsonl") if x["event"] == "step"] for run in (taught, tmp_path)]
    both = list(zip(*steps, strict=True))
    assert {a["stage"] for a, _ in both} == {"float", "quantized"}
    assert all(a["loss"] > b["loss"] + 0.1 for a, b in both)  # a second cross entropy is added
    assert weights(taught) != weights(tmp_path)


@pytest.mark.parametrize("step", [3, 7])
def test_a_taught_run_goes_on_as_if_it_had_not_stopped(
    teacher: Path, taught: Path, tmp_path: Path, step: int
) -> None:
    with pytest.raises(TrainingStoppedError):
        run_training(student(teacher), tmp_path, on_progress=sigterm_at(step))
    run_training(student(teacher), tmp_path, resume=True)
    assert weights(tmp_path) == weights(taught)
    assert sum(line["event"] == "teacher" for line in read_log(tmp_path / "log.jsonl")) == 1


def test_another_teacher_is_noticed_when_a_run_goes_on_and_none_is_needed_to_restore(
    teacher: Path, tmp_path: Path
) -> None:
    moving, run = tmp_path / "teacher", tmp_path / "student"
    shutil.copytree(teacher, moving)
    run_training(student(moving), run)
    before = (run / "env.json").read_text()
    shutil.rmtree(moving)
    assert restore(run).form == "quantized"
    run_training(parse_recipe(TEACHER, "teacher", ["seed=1"]), moving)
    with pytest.raises(ArtifactError, match=r"another teacher: the SHA-256 of its weights was [0-9a-f]{64}"):
        run_training(student(moving), run, resume=True)
    assert (run / "env.json").read_text() == before


def test_weights_of_a_file_teach_as_those_of_a_run_do(teacher: Path, tmp_path: Path) -> None:
    source = teacher / "checkpoints" / "last" / "model.safetensors"
    model = f"train.teacher={{model: {{name: '{__name__}:Linear', pretrained: '{source}'}}}}"
    of_file, of_run = load(parse_recipe(STUDENT, "s", [model])), load(student(teacher))
    for a, b in zip(of_file.parameters(), of_run.parameters(), strict=True):
        assert torch.equal(a, b) and not a.requires_grad


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_mode_is_the_recipe_s(teacher: Path, mode: str) -> None:
    assert load(student(teacher, f"train.teacher.mode={mode}")).training is (mode == "train")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.image_size=16", r"image_size: 8 in training, 16 here"),
        ("data.std=[1, 1, 1]", r"std: \(.*\) in training, \(1\.0, 1\.0, 1\.0\) here"),
        (
            "data={kind: synthetic, image_size: 8, classes: 3}",
            r"classes: 10 \(0, 1, 2, 3, 4, ...\) in training, 3 \(class 0, class 1, class 2\) here",
        ),
    ],
)
def test_a_teacher_of_other_classes_or_input_is_refused(teacher: Path, override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=rf"^train\.teacher: (?s:.*){message}"):
        load(student(teacher, override))


def test_a_teacher_that_is_missing_or_answers_otherwise_is_refused(teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"train\.teacher: .*nowhere: no run"):
        load(student(tmp_path / "nowhere"))
    file = tmp_path / "wide.safetensors"
    save_file({"1.weight": torch.zeros(12, 192), "1.bias": torch.zeros(12)}, file)
    model = f"{{name: '{__name__}:Linear', pretrained: '{file}', arguments: {{outputs: 12}}}}"
    with pytest.raises(
        RecipeError, match=r"train\.teacher: .*into 10 logits, shape \(1, 10\).*gives \(1, 12\)"
    ):
        load(parse_recipe(STUDENT, "s", [f"train.teacher={{model: {model}}}"]))
    narrow = model.replace("arguments: {outputs: 12}", "arguments: {}")
    with pytest.raises(ArtifactError, match=r"train\.teacher: .*1\.weight \(file \[12, 192\], network \[10"):
        load(parse_recipe(STUDENT, "s", [f"train.teacher={{model: {narrow}}}"]))


def test_a_teacher_that_guesses_is_warned_of(teacher: Path, tmp_path: Path) -> None:
    """Right weights with their classes in another order."""
    state = load_file(teacher / "checkpoints" / "last" / "model.safetensors")
    save_file(
        {name: value.roll(1, 0).contiguous() for name, value in state.items()}, tmp_path / "w.safetensors"
    )
    model = f"{{name: '{__name__}:Linear', pretrained: '{tmp_path / 'w.safetensors'}'}}"
    recipe = parse_recipe(STUDENT, "s", [f"train.teacher={{model: {model}}}"])
    with pytest.warns(UserWarning, match="no more than by guessing"):
        run_training(recipe, tmp_path / "run")
