"""Numbers of a checkpoint that no integers stand for: export refuses them by name, whatever they are."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from saq_qat.errors import ArtifactError
from saq_qat.train import checkpoint as checkpoint_module
from saq_qat.train.checkpoint import newest_checkpoint, write_checkpoint
from saq_qat.train.restore import restore
from saq_qat.train.run import run_training
from saq_qat_export.proof.lowered import lower_run
from saq_qat_export.proof.trained_numbers import check_clip_levels, check_weights
from tests.train.small_recipe import small_recipe

DENORMAL = 1e-40
NAMED = {"NaN": float("nan"), "infinite": float("inf"), "zero": 0.0, "denormal": DENORMAL}
Spoil = Callable[[str, Callable[[Tensor], Tensor]], None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "small"
    run_training(small_recipe("model.name=tests.export.networks:Small", "data.image_size=16"), run)
    return run


@pytest.fixture
def spoil(whole: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Spoil]:
    """Write the newest checkpoint again with a tensor changed, and whole hashes."""
    last = whole / "checkpoints" / "last"
    original = newest_checkpoint(last)
    assert original is not None
    write_checkpoint(last, original)
    monkeypatch.setattr(checkpoint_module, "not_finite", lambda tensors: None)

    def change(name: str, by: Callable[[Tensor], Tensor]) -> None:
        changed = {**original.model, name: by(original.model[name].clone())}
        write_checkpoint(last, replace(original, model=changed))

    yield change
    write_checkpoint(last, original)


def names_of(run: Path) -> tuple[list[str], list[str]]:
    """Clip levels, and weights of quantized layers, in the checkpoint."""
    checkpoint = newest_checkpoint(run / "checkpoints" / "last")
    assert checkpoint is not None
    levels = [name for name in checkpoint.model if name.endswith(".alpha")]
    layers = [name.removesuffix(".weight_quantizer.alpha") for name in levels if "weight_quantizer" in name]
    return levels, [f"{name}.weight" for name in layers]


@pytest.mark.parametrize("number", NAMED.values(), ids=NAMED.keys())
def test_a_clip_level_of_no_use_is_refused_by_name(whole: Path, spoil: Spoil, number: float) -> None:
    levels, _ = names_of(whole)
    for name in (levels[0], levels[-1]):
        spoil(name, lambda level: level.fill_(number))
        with pytest.raises(ArtifactError, match=name.removesuffix(".alpha")):
            lower_run(whole, "last")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_one_weight_that_is_not_finite_is_refused_by_name(whole: Path, spoil: Spoil, number: float) -> None:
    _, weights = names_of(whole)

    def one(weight: Tensor) -> Tensor:
        weight.reshape(-1)[-1] = number
        return weight

    spoil(weights[1], one)
    with pytest.raises(ArtifactError, match=f"{weights[1]} holds numbers that are not finite"):
        lower_run(whole, "last")


def test_a_variance_below_zero_is_refused_with_the_layer_it_is_folded_into(whole: Path, spoil: Spoil) -> None:
    checkpoint = newest_checkpoint(whole / "checkpoints" / "last")
    assert checkpoint is not None
    variance = next(name for name in checkpoint.model if name.endswith("running_var"))
    _, weights = names_of(whole)
    layers = "|".join(name.removesuffix(".weight") for name in weights)
    spoil(variance, lambda numbers: -numbers)
    with pytest.raises(ArtifactError, match=rf"^({layers}): The scale or bias .*a variance below zero"):
        lower_run(whole, "last")


def test_every_number_of_a_network_is_looked_at(whole: Path) -> None:
    """Of what training holds in memory: each clip level and each weight in turn."""
    network = restore(whole, "last").network
    check_clip_levels(network, whole)
    check_weights(network, whole)
    levels, weights = names_of(whole)
    state = network.state_dict()
    for names, check, numbers in (
        (levels, check_clip_levels, NAMED.values()),
        (weights, check_weights, NAMED.values()),
    ):
        for name in names:
            kept = state[name].clone()
            for number in numbers:
                state[name].fill_(number)
                with pytest.raises(ArtifactError, match=name.removesuffix(".alpha")):
                    check(network, whole)
            state[name].copy_(kept)


def test_zeros_and_denormals_among_others_are_weights_like_any(whole: Path) -> None:
    network = restore(whole, "last").network
    _, weights = names_of(whole)
    with torch.no_grad():
        flat = network.state_dict()[weights[0]].reshape(-1)
        flat[0], flat[1] = 0.0, DENORMAL
    check_weights(network, whole)
