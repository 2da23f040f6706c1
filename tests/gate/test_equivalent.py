"""Changes that compute the same are no mutants: refusing them would be a false alarm."""

from collections.abc import Callable
from pathlib import Path

import pytest

from saq_qat_export.run import export_run
from tests.gate.equivalent import EQUIVALENT
from tests.gate.harness import SIZE, Mutant, Place, Trained, injected
from tests.gate.networks import RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_a_network_without_mutants_is_exported(
    name: str, trained_of: Callable[[str], Trained], tmp_path: Path
) -> None:
    found = trained_of(name)
    place: Place = "onnxruntime" if "onnxruntime" in found.lowered.targets else "float16"
    with injected(Mutant("none", name, place, lambda model: None, ""), found):
        exported = export_run(found.run, tmp_path / "bundle", size=SIZE)
    assert exported.proof.passed


@pytest.mark.parametrize(
    ("mutant", "reason"), EQUIVALENT, ids=lambda v: v.name if isinstance(v, Mutant) else ""
)
def test_a_change_that_computes_the_same_is_accepted(
    mutant: Mutant, reason: str, trained_of: Callable[[str], Trained], tmp_path: Path
) -> None:
    found = trained_of(mutant.network)
    with injected(mutant, found):
        assert export_run(found.run, tmp_path / "bundle", size=SIZE).proof.passed, reason
