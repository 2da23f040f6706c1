"""State that is wrong is never used, though every hash fits: each value of state.json, each tensor."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from saq_qat.errors import ArtifactError, RecipeError
from saq_qat.train.run import run_training
from tests.faults.training.conftest import QUANTIZED
from tests.faults.training.recipes import copied, everything_in, faulty_recipe, with_state, with_tensors

MAY_BE_MISSING = ("progress.teacher", "progress.images", "progress.image_files", "progress.seconds")
"""Checkpoints of older versions lack them."""

WRONG: dict[str, tuple[Any, ...]] = {
    "format": (None, "4", 4.0, True, 0, -1, [], {}),
    "form": (None, "folded", "quantized", 1, []),
    "world_size": (None, "1", 0, -1, 1.0, True, 2),
    "position": (None, [], 6, {"step": 6}),
    "position.stage": (None, -1, 1, 7, 10**30, "0", 0.0, False),
    "position.epoch": (-1, 0, 2, 99, "1", None),
    "position.batch": (-1, 1, 3, 5, 10**9, None, "2"),
    "position.step": (-1, 0, 5, 7, 10**20, "6", 6.0),
    "progress": (None, [], {}, 3),
    "progress.loss_sum": (None, "1", [], True, -1e300, -1, 1e300, 10**400),
    "progress.best": ("99", -1, 101, [], True, None),
    "progress.accuracy": (None, [], 3, {"top1": "99"}, {"top1": 1000}, {}, {"top1": 1}),
    "progress.log_bytes": (-1, 1, 10, None, "5", 7.5, 10**15),
    "progress.seconds": (None, "1", -1, 10**400),
    "progress.teacher": (3, []),
    "progress.images": (3, "0" * 64),
    "progress.image_files": (3, []),
    "data": ([], 3, {}, {"classes": 3}),
    "recipe": ([], 3, {}, {"version": 1}, {"version": "x"}),
}


def _set(state: dict[str, Any], path: str, value: Any) -> None:
    *sections, key = path.split(".")
    for section in sections:
        state = state[section]
    state[key] = value


def _delete(state: dict[str, Any], path: str) -> None:
    *sections, key = path.split(".")
    for section in sections:
        state = state[section]
    del state[key]


def refused(run: Path, *, recipe: Any = None) -> str:
    """The sentence that refuses the run, which is left as it was, but for its tries."""
    del_previous = run / "checkpoints" / "last.previous"
    for file in del_previous.iterdir():
        file.unlink()
    del_previous.rmdir()
    before = everything_in(run / "checkpoints"), (run / "log.jsonl").read_bytes()
    with pytest.raises((ArtifactError, RecipeError)) as error:
        run_training(recipe or faulty_recipe(), run, resume=True)
    assert (everything_in(run / "checkpoints"), (run / "log.jsonl").read_bytes()) == before
    return str(error.value)


@pytest.mark.parametrize("path", WRONG)
def test_a_value_that_is_wrong_is_a_sentence(stopped: Path, tmp_path: Path, path: str) -> None:
    for number, value in enumerate(WRONG[path]):
        run = copied(stopped, tmp_path / str(number))
        with_state(run / "checkpoints" / "last", partial(_set, path=path, value=value))
        said = refused(run)
        assert path.rpartition(".")[2] in said or "state.json" in said or "process" in said, (value, said)
        assert said.count(". ") >= 1, "no remedy"
        assert len(said) < 1000, "the whole of a long number"


@pytest.mark.parametrize("path", [path for path in WRONG if path not in MAY_BE_MISSING])
def test_a_key_that_is_missing_is_a_sentence(stopped: Path, tmp_path: Path, path: str) -> None:
    run = copied(stopped, tmp_path / "run")
    with_state(run / "checkpoints" / "last", lambda state: _delete(state, path))
    assert "missing field" in refused(run)


@pytest.mark.parametrize("path", ["extra", "position.extra", "progress.extra"])
def test_a_key_that_nobody_knows_is_a_sentence(stopped: Path, tmp_path: Path, path: str) -> None:
    run = copied(stopped, tmp_path / "run")
    with_state(run / "checkpoints" / "last", lambda state: _set(state, path, 1))
    assert "unknown field 'extra'" in refused(run)


TENSORS = dict[str, Tensor]
FLOAT_STATE: dict[str, tuple[Callable[[TENSORS], object], str]] = {
    "all missing": (lambda t: t.clear(), "missing"),
    "one missing": (lambda t: t.pop("optimizer/momentum_buffer/head.weight"), "head.weight is missing"),
    "momentum missing": (lambda t: [t.pop(key) for key in list(t) if "momentum" in key], "missing"),
    "another shape": (lambda t: t.update({"optimizer/momentum_buffer/head.bias": torch.zeros(3)}), "must be"),
    "broadcast": (lambda t: t.update({"optimizer/momentum_buffer/head.bias": torch.zeros(1)}), "must be"),
    "not a number": (lambda t: t["optimizer/momentum_buffer/head.bias"].fill_(float("nan")), "not finite"),
    "infinite": (lambda t: t["optimizer/momentum_buffer/head.bias"].fill_(float("inf")), "not finite"),
    "another type": (
        lambda t: t.update(
            {"optimizer/momentum_buffer/head.bias": t["optimizer/momentum_buffer/head.bias"].double()}
        ),
        "float64",
    ),
    "unknown parameter": (lambda t: t.update({"optimizer/momentum_buffer/x": torch.zeros(1)}), "unknown"),
    "unknown moment": (lambda t: t.update({"optimizer/exp_avg/head.bias": torch.zeros(10)}), "unknown"),
    "unknown of the method": (lambda t: t.update({"method/t": torch.tensor(1)}), "method/t"),
    "negative count": (lambda t: t.update({"method/skipped_in_a_row": torch.tensor(-1)}), "count"),
    "huge count": (lambda t: t.update({"method/skipped_in_a_row": torch.tensor(10**15)}), "count"),
    "count that is none": (lambda t: t.update({"method/skipped_in_a_row": torch.zeros(2)}), "count"),
}


@pytest.mark.parametrize(("harm", "said"), FLOAT_STATE.values(), ids=FLOAT_STATE.keys())
def test_an_optimizer_of_another_training_is_named(
    stopped: Path, tmp_path: Path, harm: Callable[[TENSORS], object], said: str
) -> None:
    run = copied(stopped, tmp_path / "run")
    with_tensors(run / "checkpoints" / "last", "optimizer.safetensors", harm)
    assert said in refused(run)


SAQ_STATE: dict[str, tuple[Callable[[TENSORS], object], str]] = {
    "t too large": (lambda t: t.update({"method/t": torch.tensor(99)}), "method/t"),
    "g_v missing": (lambda t: [t.pop(key) for key in list(t) if "g_v" in key], "vertical gradient"),
    "one g_v missing": (lambda t: t.pop("method/g_v/head.weight"), "vertical gradient"),
    "g_v of another shape": (lambda t: t.update({"method/g_v/head.bias": torch.zeros(1)}), "g_v/head.bias"),
    "weights behind the average missing": (
        lambda t: [t.pop(key) for key in list(t) if key.startswith("weights/")],
        "behind the average",
    ),
    "one of them missing": (lambda t: t.pop("weights/head.weight"), "do not fit"),
    "one of them not finite": (lambda t: t["weights/head.weight"].fill_(float("inf")), "not finite"),
    "a variance of them negative": (lambda t: t["weights/norm.running_var"].fill_(-1.0), "is negative"),
}


@pytest.mark.parametrize(("harm", "said"), SAQ_STATE.values(), ids=SAQ_STATE.keys())
def test_the_state_of_efficient_training_and_of_averages_is_whole_or_refused(
    stopped_quantized: Path, tmp_path: Path, harm: Callable[[TENSORS], object], said: str
) -> None:
    run = copied(stopped_quantized, tmp_path / "run")
    with_tensors(run / "checkpoints" / "last", "optimizer.safetensors", harm)
    assert said in refused(run, recipe=faulty_recipe(*QUANTIZED))


QUANTIZED_NUMBERS: dict[str, tuple[Callable[[TENSORS], object], str]] = {
    "clip level of another": (lambda t: _first(t, ".alpha").fill_(-1.0), r"alpha is -1, and .* in records"),
    "clip level 0": (lambda t: _first(t, ".alpha").zero_(), r"alpha is 0, and no clip level"),
    "clip level below the normal numbers": (lambda t: _first(t, ".alpha").fill_(1e-42), "normal numbers"),
    "never initialised": (lambda t: _first(t, ".initialised").fill_(False), "initialised is false"),
    "negative variance": (lambda t: _first(t, ".running_var").fill_(-1.0), "running_var is negative"),
    "negative counter": (lambda t: _first(t, ".num_batches_tracked").fill_(-5), "tracked is negative"),
    "weights without a deviation": (lambda t: t["conv.weight"].fill_(3e38), "conv are so large"),
}


def _first(tensors: TENSORS, ending: str) -> Tensor:
    return next(tensor for name, tensor in tensors.items() if name.endswith(ending))


@pytest.mark.parametrize(("harm", "said"), QUANTIZED_NUMBERS.values(), ids=QUANTIZED_NUMBERS.keys())
def test_numbers_that_no_training_leaves_are_named(
    stopped_quantized: Path, tmp_path: Path, harm: Callable[[TENSORS], object], said: str
) -> None:
    run = copied(stopped_quantized, tmp_path / "run")
    with_tensors(run / "checkpoints" / "last", "model.safetensors", harm)
    assert re.search(said, refused(run, recipe=faulty_recipe(*QUANTIZED)))


WEIGHTS: dict[str, Callable[[TENSORS], object]] = {
    "not finite": lambda t: t["head.weight"].fill_(float("nan")),
    "of another type": lambda t: t.update({"head.weight": t["head.weight"].double()}),
    "of another shape": lambda t: t.update({"head.weight": torch.zeros(3, 3)}),
    "missing": lambda t: t.pop("head.weight"),
    "unknown": lambda t: t.update({"tail.weight": torch.zeros(3)}),
}


@pytest.mark.parametrize("harm", WEIGHTS.values(), ids=WEIGHTS.keys())
def test_weights_of_another_network_are_named(
    stopped: Path, tmp_path: Path, harm: Callable[[TENSORS], object]
) -> None:
    run = copied(stopped, tmp_path / "run")
    with_tensors(run / "checkpoints" / "last", "model.safetensors", harm)
    assert "weight" in refused(run)
