"""A changed number of a model is found by the self-test though hashes fit, or can change no code at all."""

from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from saq_qat.recipe.schema import Deploy
from saq_qat_export.bundle.golden import golden_codes
from saq_qat_export.bundle.probes.make import Probes, make_probes
from saq_qat_export.bundle.records import tensor_records
from saq_qat_runtime.bundle.records import TensorRecord
from saq_qat_runtime.codes import CodeEngine, compare_answers
from saq_qat_runtime.errors import SessionError
from saq_qat_runtime.recorded import Answers, Samples
from tests.export.networks import Head, Lowered, conv_block, lower, policy, smooth_images
from tests.faults.load.equivalent_numbers import Judge
from tests.faults.load.numbers_of_files import Change, changed, changes
from tests.gate.networks import TinyVit

_SIDE = 8
_IN_MAKE_TEST = 100


class Residual(nn.Module):
    """Convolution, residual sum with a shortcut, depthwise convolution, average, classifier."""

    def __init__(self, num_classes: int = 4) -> None:
        super().__init__()
        self.stem = conv_block(3, 4)
        self.branch = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6))
        self.shortcut = nn.Sequential(nn.Conv2d(4, 6, 1, 2, bias=False), nn.BatchNorm2d(6))
        self.depthwise = conv_block(6, 6, groups=6)
        self.head = Head(6, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return cast(Tensor, self.head(self.depthwise(torch.relu(self.branch(x) + self.shortcut(x)))))


@dataclass(frozen=True)
class Subject:
    """A network's file, and what its self-test compares."""

    content: bytes
    tensors: tuple[TensorRecord, ...]
    golden: Samples
    probes: Probes
    judge: Judge


@cache
def residual() -> Subject:
    torch.manual_seed(0)
    deploy = Deploy(pack_weights=False)
    return subject(lower(Residual(), policy(4, 4), smooth_images(8, _SIDE), deploy), _SIDE)


@cache
def transformer() -> Subject:
    torch.manual_seed(0)
    deploy = Deploy(pack_weights=False)
    return subject(lower(TinyVit(width=16), policy(4, 4), smooth_images(8, 16), deploy), 16)


def subject(found: Lowered, side: int) -> Subject:
    images = smooth_images(2, side, seed=1).numpy()
    codes, _ = golden_codes(found.view, found.graph, images)
    probes = make_probes(found.view, found.graph, images, codes)
    shapes = {name: (1, *array.shape[1:]) for name, array in codes.items()}
    golden = Samples(images, dict(codes), Answers(dict(codes), {}))
    judge = Judge(found.graph.content, found.view, shapes, probes)
    return Subject(found.graph.content, tensor_records(found.view), golden, probes, judge)


def failure(found: Subject, content: bytes) -> str:
    """What the self-test says of a file whose hash fits."""
    try:
        with CodeEngine(content, found.probes.samples, threads=1) as engine:
            pairs = [(s.answers, engine.run("image", s)) for s in (found.golden, found.probes.samples)]
    except SessionError as error:
        return str(error)
    return compare_answers(found.tensors, pairs).failure


def sweep(found: Subject, chosen: list[Change]) -> tuple[Counter[str], list[str]]:
    """How many were found, and how many are without effect for which reason; and those that got through."""
    reasons: Counter[str] = Counter()
    missed: list[str] = []
    for change in chosen:
        if failure(found, changed(found.content, change)):
            reasons["found"] += 1
        elif proof := found.judge.proof(change):
            reasons[proof] += 1
        else:
            missed.append(str(change))
    return reasons, missed


def check(found: Subject, chosen: list[Change]) -> None:
    assert failure(found, found.content) == ""
    reasons, missed = sweep(found, chosen)
    print(f"{len(chosen)} numbers changed: {dict(reasons)}; got through: {len(missed)}")
    assert not missed, missed
    assert reasons["found"] > len(chosen) / 2


def some(found: Subject, count: int) -> list[Change]:
    every = list(changes(found.content))
    chosen = np.random.default_rng(0).choice(len(every), min(count, len(every)), replace=False)
    return [every[index] for index in sorted(chosen.tolist())]


def test_a_changed_number_of_a_residual_network_is_found_or_can_change_no_code() -> None:
    check(residual(), some(residual(), _IN_MAKE_TEST))


@pytest.mark.slow  # a session for each of some 1,500 numbers
def test_every_changed_number_of_a_residual_network_is_found_or_can_change_no_code() -> None:
    check(residual(), list(changes(residual().content)))


@pytest.mark.slow  # a session for each number
def test_a_changed_weight_or_bias_of_a_transformer_is_found_but_for_what_coverage_leaves() -> None:
    found = transformer()
    own = {
        f"{layer.name}.{part}" for layer in found.probes.layers for part in ("weight", "bias", "weight_scale")
    }
    chosen = [change for change in some(found, 700) if change.name in own]
    assert failure(found, found.content) == ""
    reasons, missed = sweep(found, chosen)
    print(f"{len(chosen)} numbers changed: {dict(reasons)}; got through: {missed}")
    assert len(missed) <= 0.02 * len(chosen)  # as its coverage, 0.996, says


def test_almost_every_weight_and_bias_is_covered() -> None:
    coverage = residual().probes.coverage
    assert coverage.uncounted == 0
    assert coverage.share > 0.999


def test_what_differs_is_named_with_its_tensor_and_what_is_due() -> None:
    found = residual()
    change = Change("branch.0.weight", "", 3, "+1")
    said = failure(found, changed(found.content, change))
    assert "codes of branch_1.codes differ from those that export recorded" in said
    assert "is due" in said
    assert "copy the bundle or export it again" in said


def test_a_code_that_a_tie_turns_is_no_difference_and_a_second_step_is_one() -> None:
    found = residual()
    due = found.golden.answers
    (summed,) = (record for record in found.tensors if record.ties)
    for step, allowed in ((1, True), (2, False)):
        codes = {**due.codes, summed.code_tensor: due.codes[summed.code_tensor].copy()}
        place = tuple(np.argwhere(codes[summed.code_tensor] < summed.code_max - 2)[0])
        codes[summed.code_tensor][place] += step
        compared = compare_answers(found.tensors, [(due, replace(due, codes=codes))])
        assert (compared.failure == "") == allowed
        assert compared.at_ties == int(allowed)
