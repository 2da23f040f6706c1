"""The page and the text of a study: everything is there, nothing is from outside, every string is text."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from saq_qat.analysis.study.page import page
from saq_qat.analysis.study.pictures import write_pictures
from saq_qat.analysis.study.quantities import Curvature
from saq_qat.analysis.study.result import StudyResult
from saq_qat.analysis.study.text import notes, text_of
from tests.analysis.study.results import study_result

VOID = ("meta", "br")
ATTACK = "<script>alert('x')</script>&\"$\\frac"


class Reader(HTMLParser):
    """Elements and text; demands that every element is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[str] = []
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.ids += [value for key, value in attributes if key == "id" and value is not None]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture
def result() -> StudyResult:
    return study_result(
        {
            "plain": {0: 90.0, 1: 91.0, 2: 92.5},
            "twice": {0: 91.0, 1: None},
            "saq": {0: 90.5, 1: 91.5, 3: 95.0},
        },
        [("saq", "plain", "equal epochs"), ("saq", "twice", "equal compute")],
    )


def test_the_page_is_one_file_that_asks_for_nothing(result: StudyResult) -> None:
    text = page(result)
    assert "http" not in text and "url(" not in text.replace("url(#", "")
    assert not re.search(r'\b(src|href)="(?!#)', text)
    found = Reader(text)
    assert "script" not in found.elements
    assert len(found.ids) == len(set(found.ids))
    assert found.elements.count("svg") >= 2 + len(("deployed", "fake-quant", "val loss", "sharpness"))
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text


def test_whatever_a_study_calls_itself_is_shown_as_text(result: StudyResult) -> None:
    arms = tuple(replace(arm, name=ATTACK, overrides=(ATTACK,), recipe=ATTACK) for arm in result.arms[:1])
    runs = tuple(replace(run, arm=ATTACK) for run in result.runs if run.arm == "plain")
    comparisons = tuple(replace(comparison, of=ATTACK) for comparison in result.comparisons)
    attacked = replace(result, name=ATTACK, statistics=ATTACK, arms=arms, runs=runs, comparisons=comparisons)
    text = page(attacked)
    assert "<script" not in text
    found = Reader(text)
    assert "script" not in found.elements
    assert sum(ATTACK in line for line in found.texts) >= 8


def test_numbers_of_the_page_and_of_the_text_are_those_of_the_result(result: StudyResult) -> None:
    for shown in (text_of(result), "\n".join(Reader(page(result)).texts)):
        assert "91.17 ± 1.26" in shown  # 90, 91 and 92.5
        assert "0: +0.50, 1: +0.50" in shown
        assert "equal compute" in shown
        assert "22/22" in shown


def test_what_is_missing_is_said(result: StudyResult) -> None:
    said = "\n".join(notes(result))
    assert "saq - plain: seeds 2, 3 only in one arm, left out." in said
    assert "saq - twice: seeds 1, 3 only in one arm, left out." in said
    assert "saq - twice: one pair of seeds, so no interval and no test." in said
    assert "twice: diverged with seed 1, which have no numbers." in said
    assert "saq - plain: all differences are equal, so there is no t-test." in said


def test_a_lambda_max_that_did_not_converge_is_named_with_its_runs(result: StudyResult) -> None:
    first, *others = result.runs
    assert first.measured is not None and first.measured.curvature is not None
    assert "converge" not in "\n".join(notes(result))
    for curvature in (replace(first.measured.curvature, converged=False), Curvature(None, None, False, 200)):
        run = replace(first, measured=replace(first.measured, curvature=curvature))
        changed = replace(result, runs=(run, *others))
        for told in ("\n".join(notes(changed)), page(changed)):
            assert f"lambda max did not converge in {run.arm}-seed{run.seed}: a - stands" in told


def test_pictures_are_the_same_each_time_and_of_both_kinds(result: StudyResult, tmp_path: Path) -> None:
    written = write_pictures(result, tmp_path / "one")
    again = write_pictures(result, tmp_path / "two")
    assert [path.name for path in written] == ["arms.svg", "arms.png", "differences.svg", "differences.png"]
    assert [path.read_bytes() for path in written] == [path.read_bytes() for path in again]
    assert written[1].read_bytes().startswith(b"\x89PNG")


def test_without_comparisons_there_is_no_picture_of_them(tmp_path: Path) -> None:
    written = write_pictures(study_result({"plain": {0: 90.0}}, []), tmp_path)
    assert [path.name for path in written] == ["arms.svg", "arms.png"]
    Reader(page(study_result({"plain": {0: 90.0}}, [])))


def test_what_equal_means_and_what_an_arm_declared_is_told(result: StudyResult) -> None:
    arms = (replace(result.arms[0], differs_in=("data", "schedule")), *result.arms[1:])
    for told in ("\n".join(notes(replace(result, arms=arms))), page(replace(result, arms=arms))):
        assert "equal epochs: both arms" in told and "equal compute: as many" in told
        assert "plain: declared to differ in data, schedule" in told
    assert "declared to differ" not in "\n".join(notes(result))
