"""When passes are compiled and how tensors lie in memory: decided by the recipe, and said."""

import pytest
import torch

from saq_qat.errors import SetupError
from saq_qat.models.resnet_cifar import resnet20
from saq_qat.recipe.load import parse_recipe
from saq_qat.recipe.schema import DescentStage
from saq_qat.train.compilation import Execution, choose_execution

RECIPE = """
version: 1
name: execution
model: {name: resnet20}
data: {kind: synthetic, image_size: 32, train_size: 256}
quant: {weight: {bits: 4}, activation: {bits: 4}}
train:
  batch_size: 128
  optimizer: {kind: sgd}
  stages:
    - {kind: quantized, epochs: 1, lr: 0.1}
"""
PLAIN = "{kind: quantized, epochs: 1, lr: 0.1}"
IMAGE = torch.Size((3, 32, 32))


def chosen(steps: int, *overrides: str, stage: str = PLAIN) -> Execution:
    recipe = parse_recipe(RECIPE.replace(PLAIN, stage), "x", list(overrides))
    descent = recipe.train.stages[0]
    assert isinstance(descent, DescentStage)
    return choose_execution(recipe.train, descent, resnet20(10), IMAGE, steps)


@pytest.fixture(autouse=True)
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "true")  # any program: it is not run


def test_a_stage_is_compiled_where_its_work_earns_the_warm_up() -> None:
    # ResNet-20: 40.8 million products of two operations in a forward pass, three times that in a step
    operations = 128 * 3 * 2 * 40.8e6
    enough = round(5e13 / operations)
    assert not chosen(enough - 20).compiled and chosen(enough + 20).compiled
    assert "are too few to earn the warm-up" in chosen(1).reason


def test_two_passes_are_twice_the_work_and_efficient_training_less() -> None:
    sharp = "{kind: quantized, epochs: 1, lr: 0.1, method: {kind: saq, rho: 0.1}}"
    rare = sharp.replace("rho: 0.1", "rho: 0.1, efficient: {tau: 4}")
    steps = 1000
    assert not chosen(steps).compiled and chosen(steps, stage=sharp).compiled
    assert not chosen(steps, stage=rare).compiled and chosen(1400, stage=rare).compiled


@pytest.mark.parametrize("word", ["on", "true"])
def test_a_recipe_can_ask_for_it(word: str) -> None:
    assert chosen(1, f"train.compile={word}").compiled


@pytest.mark.parametrize("word", ["off", "false"])
def test_a_recipe_can_ask_against_it(word: str) -> None:
    assert not chosen(10**6, f"train.compile={word}").compiled


def test_channels_last_comes_with_compilation_unless_the_recipe_says() -> None:
    assert chosen(10, "train.compile=on").memory_format == torch.channels_last
    assert chosen(10, "train.compile=off").memory_format == torch.contiguous_format
    on_demand = chosen(10, "train.compile=off", "train.memory_format=channels_last")
    assert on_demand.memory_format == torch.channels_last
    kept = chosen(10, "train.compile=on", "train.memory_format=contiguous")
    assert kept.described() == {
        "compiled": True,
        "reason": "train.compile is on",
        "memory_format": "contiguous",
    }


def test_without_a_compiler_even_on_is_off_and_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert chosen(10, "train.compile=on").reason == "this machine has not a C++ compiler (no-such-compiler)"


def test_counting_operations_leaves_the_mode_of_the_network() -> None:
    recipe = parse_recipe(RECIPE, "x")
    network = resnet20(10).train()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    stage = recipe.train.stages[0]
    assert isinstance(stage, DescentStage)
    choose_execution(recipe.train, stage, network, IMAGE, 10)
    assert network.training
    assert all(torch.equal(before[name], buffer) for name, buffer in network.named_buffers())


def test_short_names_of_precisions_are_read_in_full() -> None:
    assert parse_recipe(RECIPE, "x", ["train.precision=bf16"]).train.precision == "bfloat16"
    assert parse_recipe(RECIPE, "x", ["train.precision=fp32"]).train.precision == "float32"


def test_a_cpu_without_bfloat16_is_refused_rather_than_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    older = {"architecture": "x86_64", "avx512_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: older)
    with pytest.raises(SetupError, match=r"needs a GPU, or a CPU with AVX-512 BF16.*train.precision=float32"):
        chosen(10, "train.precision=bf16")
    assert not chosen(10).compiled
