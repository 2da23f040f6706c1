"""The proof on a terminal: classes by name, equal blocks once, differing ones by name."""

import dataclasses

import pytest

from saq_qat.cli.proof_text import print_comparisons, print_flips, print_tensors
from saq_qat_export.proof.comparison import Comparison
from saq_qat_export.proof.predictions import Agreement, Flip
from saq_qat_export.proof.prove import Proof
from saq_qat_export.proof.tensors import TensorComparison
from saq_qat_runtime.kernels import IntegerCount

Captured = pytest.CaptureFixture[str]


def exact(name: str) -> TensorComparison:
    values = {"name": name, "producer": "integer", "compared": 1000}
    fields = [field.name for field in dataclasses.fields(TensorComparison)]
    return TensorComparison(**{field: values.get(field, 0) for field in fields})  # type: ignore[arg-type]  # fields of two types


def proof(*differing: str) -> Proof:
    names = [f"blocks_{i}_{part}.codes" for i in range(12) for part in ("norm1", "attn_k")]
    tensors = tuple(
        dataclasses.replace(exact(name), mismatches=int(name.removesuffix(".codes") in differing))
        for name in names
    )
    comparisons = tuple(Comparison(str(i), True, True, 1, 0, "", tensors) for i in range(3))
    flips = (Flip(7, 0, 1, 0), Flip(9, 1, 1, 0))
    return Proof(comparisons, Agreement(40, 90.0, 90.0, 90.0, 0, 2, flips), IntegerCount(1, 1, {"QGemm": 1}))


def test_tensors_of_equal_blocks_are_one_row_and_a_differing_block_its_own(capsys: Captured) -> None:
    print_tensors(proof())
    shown = capsys.readouterr().out
    assert "blocks.0 to blocks.11, 12 alike" in shown
    assert shown.count("norm1") == 1 and "first divergence: none" in shown
    print_tensors(proof("blocks_4_attn_k"))
    shown = capsys.readouterr().out
    assert shown.count("norm1") == 3 and "first divergence: blocks_4_attn_k" in shown


def test_comparisons_fit_80_columns_outside_a_terminal(capsys: Captured) -> None:
    detail = "at most 3 codes of 1,000 differ by one step, each of them at a tie that rounding explains"
    found = Comparison("deploy view in float32 = ONNX Runtime", False, True, 1_234_567, 3, detail)
    print_comparisons(dataclasses.replace(proof(), comparisons=(found,)))
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert {"pass", "soft", "1,234,567", "3", *found.name.split(), *detail.split()} <= set(shown.split())


def test_changed_answers_are_listed_by_the_names_of_classes(capsys: Captured) -> None:
    print_flips(proof(), ("cat", "dog"))
    shown = capsys.readouterr().out
    assert "2 of 40 answers differ" in shown
    assert [line.split() for line in shown.splitlines()[-2:]] == [
        ["7", "cat", "dog", "cat"],
        ["9", "dog", "dog", "cat"],
    ]
