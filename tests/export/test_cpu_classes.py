"""A network for CPUs with VNNI alone: told what plain sessions elsewhere give, exact in sessions of ours."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from saq_qat.errors import LegalityError
from saq_qat.quant.deploy.view import deploy_view
from saq_qat.quant.network import calibrate, quantize
from saq_qat.recipe.schema import Cpu, Deploy
from saq_qat_export.bundle.golden import golden_codes
from saq_qat_export.bundle.records import cpu_record
from saq_qat_export.proof.codes import PAIR_COMPARISON, pair_comparison
from saq_qat_export.proof.probe import Probe
from saq_qat_export.proof.teacher import Teacher
from saq_qat_export.proof.tensors import compare_reference
from saq_qat_export.reference.deploy_view import run_reference
from saq_qat_export.run import _check_pairs
from tests.export.networks import ONNX_RUNTIME, SIDE, Lowered, Small, disturb, policy, small, smooth_images

IMAGES = smooth_images(4, SIDE, seed=1)


@cache
def for_vnni() -> Lowered:
    torch.manual_seed(0)
    model = Small()
    disturb(model)
    network, plan = quantize(model, policy(4, 4), ONNX_RUNTIME, cpu="vnni")
    calibrate(network, [smooth_images(16, SIDE)])
    # The largest codes next to each other, as a trained stem may have them.
    network.get_parameter("stem.0.weight").data[0].fill_(1.0)
    view = deploy_view(network.eval(), Deploy())
    return Lowered(network, plan, view, IMAGES)


def test_its_file_is_over_the_bound_where_its_plan_says_so() -> None:
    assert [(p.largest_first, p.largest_second) for p in for_vnni().graph.over_pair_bound] == [(255, 127)]
    assert [f.where for f in for_vnni().plan.findings if f.rule == "ORT005"] == ["stem.0"]


def test_the_proof_counts_what_plain_sessions_elsewhere_get_wrong() -> None:
    told, hard = (pair_comparison(for_vnni().view, [IMAGES], cpu=cpu) for cpu in ("vnni", "any"))
    assert told.mismatches > 0
    assert (told.hard, told.passed) == (False, True)
    assert (hard.hard, hard.passed) == (True, False)
    assert "without VNNI" in told.detail


@pytest.mark.parametrize("network", [for_vnni, small])
def test_a_reference_known_already_spares_the_emulation_and_changes_nothing(
    network: Callable[[], Lowered],
) -> None:
    found = network()
    teacher = Teacher(found.view, found.graph)
    known = pair_comparison(found.view, [IMAGES], cpu="any", teacher=teacher)
    assert known == pair_comparison(found.view, [IMAGES], cpu="any")
    assert known.passed is (network is small)


@pytest.mark.parametrize(("network", "runs"), [(small, 0), (for_vnni, 2)])
def test_pairs_are_emulated_where_any_could_saturate(
    network: Callable[[], Lowered], runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = network()
    teacher, emulated = Teacher(found.view, found.graph), []
    teacher.teach(IMAGES)

    def noted(*arguments: Any, **settings: Any) -> Any:
        emulated.append(settings)
        return run_reference(*arguments, **settings)

    monkeypatch.setattr("saq_qat_export.proof.tensors.run_reference", noted)
    pair_comparison(found.view, [IMAGES], cpu="any", teacher=teacher)
    assert len(emulated) == runs


def test_a_reference_of_other_codes_than_its_own_spares_nothing() -> None:
    taught = Teacher(small().view, small().graph).teach(IMAGES)
    first = next(iter(taught.seen.codes))
    other = taught.seen.codes | {first: taught.seen.codes[first] ^ 1}
    assert taught.is_own
    assert not replace(taught, seen=replace(taught.seen, codes=other)).is_own


def test_the_engine_is_asked_for_exact_kernels() -> None:
    """On every CPU; without the option, those without VNNI would differ."""
    seen = Probe(for_vnni().graph).observe(IMAGES.numpy())
    assert not any(tensor.mismatches for tensor in compare_reference(for_vnni().view, IMAGES.numpy(), seen))


def test_the_manifest_says_it_in_words_and_numbers() -> None:
    found = for_vnni()
    comparison = pair_comparison(found.view, [IMAGES], cpu="vnni")
    assert comparison.name == PAIR_COMPARISON
    record = cpu_record(
        "vnni", found.graph.over_pair_bound, cast(Any, SimpleNamespace(comparisons=(comparison,)))
    )
    assert len(record.over_pair_bound) == 1
    assert f"{comparison.mismatches:,} of {comparison.compared:,}" in record.elsewhere
    everywhere = cpu_record("any", (), cast(Any, SimpleNamespace(comparisons=())))
    assert (everywhere.over_pair_bound, everywhere.elsewhere) == (
        (), "the same codes on every CPU, in any session",
    )  # fmt: skip  # one value a line is a page


@pytest.mark.parametrize(
    ("cpu", "allowed", "refused"), [("any", False, True), ("any", True, False), ("vnni", False, False)]
)
def test_export_refuses_a_file_over_the_bound_unless_told_otherwise(
    cpu: Cpu, allowed: bool, refused: bool
) -> None:
    deploy = SimpleNamespace(onnxruntime=SimpleNamespace(cpu=cpu))
    restored = SimpleNamespace(recipe=SimpleNamespace(deploy=deploy))
    lowered = cast(Any, SimpleNamespace(shipped={"onnxruntime": for_vnni().graph}, restored=restored))
    if not refused:
        _check_pairs(lowered, allow_failed_gate=allowed)
        return
    with pytest.raises(LegalityError, match=r"error ORT005 .*2 \* 255 \* 127"):
        _check_pairs(lowered, allow_failed_gate=allowed)


def test_golden_codes_are_the_references_whatever_the_engine_gives() -> None:
    found, images = small(), IMAGES.numpy()
    expected = run_reference(found.view, images)
    for graph in (found.graph, replace(found.graph, content=small(pack_weights=False).graph.content)):
        codes, logits = golden_codes(found.view, graph, images)
        assert all((codes[name] == expected.codes[name]).all() for name in expected.codes)
        assert (logits == expected.logits).all()
    other = replace(for_vnni().graph)
    codes, _ = golden_codes(found.view, other, images)
    assert all((codes[name] == expected.codes[name]).all() for name in expected.codes)
