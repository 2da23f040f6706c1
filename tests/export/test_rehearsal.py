"""The whole way of an untrained network: exact, or refused with the place and the reason."""

import copy
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import fx, nn

from saq_qat.cli.main import main
from saq_qat.data.batches import train_batches
from saq_qat.data.open import open_data
from saq_qat.errors import LegalityError
from saq_qat.models.build import build_model
from saq_qat.quant.deploy.integer_modules import IntegerLayer
from saq_qat.quant.deploy.view import deploy_view
from saq_qat.recipe.load import parse_recipe
from saq_qat.recipe.schema import Recipe
from saq_qat.train.forms import next_form
from saq_qat_export import rehearsal
from saq_qat_export.proof.comparison import Comparison
from saq_qat_export.rehearsal import check_deployable, rehearse
from tests.export.rehearsed_networks import (
    Averages,
    Base,
    BiasesAlone,
    BranchOnSizes,
    ChannelsLast,
    Coordinates,
    GroupedTranspose,
    MaskedAttention,
    Maxima,
    NewZeros,
    NothingToSee,
    OfOneBatch,
    OfParametersAlone,
    OfValues,
    PadsByInfinity,
    PadsByInfinityBelowZero,
    PatchesOverlap,
    PositionsOfABatch,
    RandomLeaks,
    ReadsAView,
    Recurrent,
    RepeatedParts,
    SamplesAGrid,
    SharedLevels,
    TiedWeights,
    TooLarge,
    TwoOfAKind,
    compiled,
    half,
    scripted,
)

RECIPE = """
version: 1
name: rehearsal
model: {{name: "tests.export.rehearsed_networks:{name}"}}
data: {{kind: synthetic, image_size: 16, train_size: 16, val_size: 8}}
quant: {{weight: {{bits: 4}}, activation: {{bits: 4}}}}
train:
  batch_size: 8
  optimizer: {{kind: sgd}}
  stages: [{{kind: quantized, epochs: 1, lr: 0.01}}, {{kind: deploy, epochs: 1, lr: 0.001}}]
deploy: {{targets: [onnxruntime, tensorrt]}}
"""


EXACT: tuple[Callable[[int], nn.Module], ...] = (
    BranchOnSizes, Coordinates, RepeatedParts, OfParametersAlone, GroupedTranspose, TiedWeights, ChannelsLast,
    Averages, half, compiled, SharedLevels, PositionsOfABatch, TwoOfAKind, PatchesOverlap, NothingToSee,
    PadsByInfinity, MaskedAttention, Maxima, NewZeros, SamplesAGrid, Recurrent,
)  # fmt: skip  # one value a line is a page


# A rehearsal takes seconds; these are lowered to integers below, and rehearsed with the slow ones.
SLOW: tuple[Callable[[int], nn.Module], ...] = (
    SamplesAGrid, NewZeros, GroupedTranspose, Averages, half, ChannelsLast, PatchesOverlap, TwoOfAKind,
    RepeatedParts, TiedWeights, compiled, PositionsOfABatch, PadsByInfinity, Maxima,
)  # fmt: skip  # one a line is a page


def recipe_of(network: Callable[[int], nn.Module]) -> Recipe:
    return parse_recipe(RECIPE.format(name=network.__name__), "rehearsal")


@pytest.mark.parametrize(
    "network",
    # Slow: operations of others once more; all of them are lowered below.
    [one if one not in SLOW else pytest.param(one, marks=pytest.mark.slow) for one in EXACT],
)
def test_networks_as_people_write_them_are_exact(network: Callable[[int], nn.Module]) -> None:
    recipe = recipe_of(network)
    images = open_data(recipe.data, 0)
    found = rehearse(build_model(recipe.model, 10), recipe, images)
    assert [str(one) for one in found.findings if one.level == "error"] == []
    assert [f"{one.name}: {one.detail}" for one in found.failed] == []
    assert sum(one.compared for one in found.comparisons) > 10_000


@pytest.mark.parametrize("network", SLOW)
def test_those_that_are_rehearsed_with_the_slow_ones_are_lowered_to_integers(
    network: Callable[[int], nn.Module],
) -> None:
    recipe = recipe_of(network)
    images, _ = next(iter(train_batches(open_data(recipe.data, 0), batch_size=8, seed=0, epoch=0)))
    model = build_model(recipe.model, 10)
    made, plan = next_form(model, None, recipe, "float", "quantized", lambda: [images])
    assert isinstance(made, fx.GraphModule) and plan is not None
    view = deploy_view(made, recipe.deploy)
    assert sum(isinstance(module, IntegerLayer) for module in view.modules()) >= 3  # stem, convolution, head


Refusal = Callable[..., str]


@pytest.fixture
def refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refusal:
    """What a command says of a network, which it ends with exit code 2."""

    def told(network: Callable[[int], nn.Module], command: str, *options: str) -> str:
        file = tmp_path / "recipe.yaml"
        file.write_text(RECIPE.format(name=network.__name__))
        monkeypatch.setattr("sys.argv", ["saq-qat", command, str(file), *options])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 2
        return " ".join("".join(capsys.readouterr()).split())

    monkeypatch.setattr("signal.signal", lambda *_: None)
    return told


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (ReadsAView, r"A part of .* is assigned to, and .* shares its memory"),
        (TooLarge, r"A scale must be a finite float32; the weights of fc reach"),
        (PadsByInfinityBelowZero, r"What is quantized must be finite; .*pad"),
        (RandomLeaks, r"torch\.onnx cannot write the network as ONNX, because of stem\.2: .*rrelu"),
        (BiasesAlone, r"would ship as their biases alone: conv\.0 channel 0, 1.*max_constant_channels"),
        (OfOneBatch, r"NET004 conv\.1: BatchNorm2d without running statistics"),
        (OfValues, r"cannot be traced \(.*rehearsed_networks\.py, line \d+: return x if x\.sum\(\) > 0"),
        (scripted, r"scripted module.*without torch\.jit\.script"),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch.jit.script, which one of them is made by
def test_others_are_refused_by_check_with_the_place(
    network: Callable[[int], nn.Module], message: str, refusal: Refusal
) -> None:
    assert re.search(message, told := refusal(network, "check")), told


def test_train_begins_with_the_same_refusal_and_makes_no_folder(refusal: Refusal, tmp_path: Path) -> None:
    told = refusal(BiasesAlone, "train", "--runs", str(tmp_path / "runs"))
    assert "would ship as their biases alone" in told
    assert not (tmp_path / "runs").exists()


def test_a_comparison_that_fails_is_a_refusal_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_of(Base)
    failing = Comparison(
        "integer reference = ONNX Runtime", True, False, 10, 3, "first at relu.codes: 3 of 10"
    )
    monkeypatch.setattr(rehearsal, "prove_integers", lambda *_, **__: [failing])
    with pytest.raises(LegalityError, match=r"integers are not its own: .*relu\.codes: 3 of 10"):
        check_deployable(build_model(recipe.model, 10), recipe, open_data(recipe.data, 0))


def test_a_fault_of_ours_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise KeyError("relu.codes\n\nWhile executing %conv_0 : [num_users=1] = call_module[target=conv.0]")

    recipe = recipe_of(Base)
    monkeypatch.setattr(rehearsal, "prove_integers", fails)
    with pytest.raises(LegalityError, match=r"export at conv_0, which is a fault of saq-qat .*KeyError"):
        check_deployable(build_model(recipe.model, 10), recipe, open_data(recipe.data, 0))


def test_the_network_keeps_its_weights() -> None:
    recipe = recipe_of(Base)
    model = build_model(recipe.model, 10)
    before = copy.deepcopy(model.state_dict())
    rehearse(model, recipe, open_data(recipe.data, 0))
    assert all(torch.equal(before[name], value) for name, value in model.named_parameters())
