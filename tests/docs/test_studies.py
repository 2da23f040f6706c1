"""docs/studies.md: its study is accepted as it stands, and its tables have every key and quantity."""

import shlex
from pathlib import Path

import pytest

from saq_qat.analysis.study.arms import comparison_kind, resolve_arms
from saq_qat.analysis.study.jobs import jobs_of
from saq_qat.analysis.study.quantities import QUANTITIES
from saq_qat.analysis.study.schema import Measure, load_study
from saq_qat.recipe.load import load_recipe
from tests.cli.conftest import SaqQat
from tests.docs.blocks import blocks
from tests.docs.paper_tables import rows

DOCUMENT = Path(__file__).parents[2] / "docs" / "studies.md"


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saq_qat: SaqQat) -> Path:
    """The document's study, beside the recipe that `init` writes."""
    monkeypatch.chdir(tmp_path)
    assert saq_qat("init") == 0
    (block,) = (block for block in blocks(DOCUMENT) if block.file == "study.yaml")
    path = tmp_path / "study.yaml"
    path.write_text(block.text)
    return path


def test_its_study_compares_at_equal_epochs_and_at_equal_compute(study: Path) -> None:
    shown = load_study(study)
    arms = resolve_arms(shown, study.parent)
    kinds = [comparison_kind(arms[pair.of].recipe, arms[pair.against].recipe) for pair in shown.comparisons]
    assert kinds == ["equal epochs", "equal compute"]


def test_what_its_command_trains_elsewhere_is_a_run_of_its_study(study: Path) -> None:
    (line,) = (
        line
        for line in DOCUMENT.read_text(encoding="utf-8").splitlines()
        if line.startswith("saq-qat train ") and "--runs" in line
    )
    _, _, recipe, *overrides, _, runs = shlex.split(line)
    shown = load_study(study)
    jobs = jobs_of(shown, resolve_arms(shown, study.parent), Path("studies", shown.name, "runs"), 1)
    assert load_recipe(study.parent / recipe, overrides) in [job.recipe for job in jobs]
    assert {job.runs for job in jobs} == {Path(runs)}


def test_it_has_every_key_of_what_is_measured_with_its_default() -> None:
    told = {row["key"].strip("`"): row["default"].strip("`") for row in rows(DOCUMENT, "key")}
    assert told == {name: str(field.default) for name, field in Measure.model_fields.items()}


def test_it_explains_every_quantity() -> None:
    told = {
        label.strip()
        for row in rows(DOCUMENT, "in the tables")
        for cell in row["in the tables"].split(";")
        for label in cell.split(",")
    }
    assert {quantity.label for quantity in QUANTITIES} <= told
    assert {quantity.unit for quantity in QUANTITIES if quantity.unit} <= told
