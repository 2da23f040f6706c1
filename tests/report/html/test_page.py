"""A page says first what matters, shows nothing that was not measured, and asks nobody for anything."""

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saq_qat.errors import SaqError
from saq_qat.report.collect import Collected, collect
from saq_qat.report.details import Details, details_of
from saq_qat.report.html.page import BYTES, report_page
from saq_qat.report.predictions import Predictions
from saq_qat.report.report_json import report_json
from tests.report.conftest import proof
from tests.report.html.conftest import HOSTILE


class Elements(HTMLParser):
    """Tags, attributes and text of a page, scripts apart."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.scripts = "", ""
        self._in = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in = tag if tag in ("script", "style") else self._in

    def handle_endtag(self, tag: str) -> None:
        self._in = "" if tag == self._in else self._in

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            self.scripts += data
        elif not self._in:
            self.text += f" {data}"


@pytest.fixture(scope="module")
def details(known: Collected) -> Details:
    return details_of(known, 24)


@pytest.fixture(scope="module")
def page(known: Collected, details: Details) -> str:
    return report_page(known, details)


def words(page: str) -> str:
    return " ".join(Elements(page).text.split())


def test_the_verdict_and_its_figures_come_first_the_worse_one_included(page: str) -> None:
    shown = words(page)
    facts = (
        "PASS",
        "Accuracy, deployed 87.50 %",
        "Predictions that flip 1 of 40",
        "Integers proved yes",
        "Speed beside float32 1.50x 20.1 ms against 30.2 ms",
        "Speed beside static int8 0.45x 20.1 ms against 9.05 ms",
        "Integer products 3 of 3",
    )
    assert [fact for fact in facts if fact not in shown] == []
    places = [shown.index(fact) for fact in facts]
    assert places == sorted(places)
    assert places[-1] < shown.index("Before you quote a figure") < shown.index("FASTER at batch 1")


def test_a_failed_run_says_why_before_its_figures(known: Collected, details: Details) -> None:
    failed = dataclasses.replace(known, proof=proof(passed=False))
    shown = words(report_page(failed, details))
    assert (
        shown.index("FAIL")
        < shown.index("integer reference = ONNX Runtime (7)")
        < shown.index("Accuracy, deployed")
    )
    assert "Integers proved NO" in shown


def test_a_page_holds_all_it_needs_and_asks_nobody(page: str) -> None:
    found = Elements(page)
    assert len(page.encode()) < BYTES
    for tag, attributes in found.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:image/")), (tag, name, value)
    assert [a.get("type") for t, a in found.tags if t == "script"] == ["application/json"]
    assert "url(" not in page and "@import" not in page
    assert re.findall(r"https?://", page.replace(found.scripts, "")) == []


def test_the_numbers_of_a_page_are_those_of_report_json(
    page: str, known: Collected, details: Details
) -> None:
    data = json.loads(Elements(page).scripts)
    whole = json.loads(json.dumps(report_json(known)))
    for key in ("verdict", "accuracy", "bench", "integer_products", "bundle", "recipe", "environment"):
        assert data["report"][key] == whole[key]
    assert details.grids is not None and details.predictions is not None
    assert [use["name"] for use in data["grids"]["weights"]] == ["conv1", "conv2", "fc"]
    assert sum(map(sum, data["confusion"]["deployed"])) == len(details.predictions.images)
    assert sum(data["latencies"][0]["calls"]["bundle, ONNX Runtime"]) == 120


def test_every_section_shows_what_was_measured(page: str, details: Details) -> None:
    shown = words(page)
    for part in (
        "validation training",
        "Commonest wrong answers",
        "image 3 labelled 1 1 → 2",
        "on the bundle's 2 golden samples",
        "Distribution at batch 1",
        "initialise: mse",
    ):
        assert part in shown
    assert details.grids is not None
    pictures = [a for tag, a in Elements(page).tags if tag == "svg" and a.get("class") == "histogram"]
    assert len(pictures) == len(details.grids.weights) + len(details.grids.activations)
    assert [a["alt"] for tag, a in Elements(page).tags if tag == "img"] == ["1"]


def test_strings_from_outside_stay_text(hostile: Collected, details: Details) -> None:
    assert hostile.manifest is not None
    named = dataclasses.replace(details, classes=hostile.manifest.labels, recipe=HOSTILE)
    page = report_page(hostile, named)
    found = Elements(page)
    assert sum(tag == "script" for tag, _ in found.tags) == 1
    assert "W?W?WWWWWW" in found.text and not {"\u202e", "\u2066"} & set(page)
    assert found.text.count("<script>alert(1)</script>") > 20
    assert "{{ 7*7 }}" in found.text and "49" not in re.findall(r"_]]> (\S+) </script>", found.text)
    assert json.loads(found.scripts)["report"]["recipe"]["name"] == HOSTILE


def test_what_was_not_measured_says_by_which_command_it_is(known: Collected) -> None:
    bare = dataclasses.replace(known, evaluation=None, bench=None, proof=None)
    shown = words(report_page(bare, details_of(bare, 24)))
    for command in ("eval", "bench", "verify"):
        assert f"saq-qat {command} {known.run}" in shown


def test_a_page_that_would_be_too_large_shows_fewer_pictures(
    known: Collected, details: Details, page: str
) -> None:
    assert details.flips is not None
    picture = dataclasses.replace(details.flips.shown[0], picture="data:image/png;base64," + "A" * 50_000)
    many = dataclasses.replace(
        details, flips=dataclasses.replace(details.flips, total=30, shown=(picture,) * 24)
    )
    smaller = report_page(known, many, limit=900_000)
    assert len(smaller.encode()) < 900_000
    assert "The first 12 are shown." in words(smaller)
    with pytest.raises(SaqError, match=r"would be [\d,]+ bytes, 1,000 are allowed"):
        report_page(known, details, limit=1000)


def test_a_run_that_was_never_trained_has_a_page(known: Collected, tmp_path: Path) -> None:
    (tmp_path / "resolved.yaml").write_bytes((known.run / "resolved.yaml").read_bytes())
    new = collect(tmp_path)
    shown = words(report_page(new, details_of(new, 24)))
    assert (
        "INCOMPLETE" in shown and "No epoch was finished yet" in shown and "no quantized checkpoint" in shown
    )


def test_the_same_run_gives_the_same_page(known: Collected, page: str) -> None:
    assert report_page(known, details_of(known, 24)) == page


def test_mismatches_of_the_proof_stand_beside_their_tensor(known: Collected, details: Details) -> None:
    from saq_qat.report.html.layers import activation_table
    from saq_qat_export.proof.tensors import TensorComparison

    assert known.proof is not None and known.manifest is not None
    tensor = known.manifest.tensors[1]
    counts: Any = TensorComparison(tensor.code_tensor, "integer", 100, 7, 0, 0, 1, 15)
    comparison = dataclasses.replace(known.proof.comparisons[0], tensors=(counts,))
    wrong = dataclasses.replace(known, proof=dataclasses.replace(known.proof, comparisons=(comparison,)))
    table = activation_table(wrong, details.grids, 24)
    assert table is not None
    column = table.columns.index("mismatches")
    assert [row[column] for row in table.rows][:3] == ["0", "7", "0"] and table.bad == (1,)


def test_a_network_of_hundreds_of_layers_and_a_thousand_classes_has_a_page(
    known: Collected, details: Details
) -> None:
    assert details.grids is not None and known.manifest is not None
    names = [f"features.denseblock{i // 40}.layer{i % 40}.conv" for i in range(600)]
    uses = tuple(dataclasses.replace(details.grids.weights[1], name=name) for name in names)
    layers = tuple(dataclasses.replace(known.manifest.layers[1], name=name) for name in names)
    tensors = tuple(dataclasses.replace(known.manifest.tensors[1], name=name) for name in names)
    classes = tuple(f"n{i:08}, a class with a long name" for i in range(1000))
    labels = np.arange(50_000) % 1000
    answers = np.where(np.arange(50_000) % 4, labels, (labels * 7) % 1000)
    predictions = Predictions(tuple(map(str, range(50_000))), labels, answers, np.roll(answers, 1))
    manifest = dataclasses.replace(known.manifest, layers=layers, tensors=tensors)
    large = dataclasses.replace(known, manifest=manifest, log=known.log * 300)
    grids = dataclasses.replace(details.grids, weights=uses, activations=uses)
    page = report_page(
        large, dataclasses.replace(details, grids=grids, predictions=predictions, classes=classes)
    )
    assert len(page.encode()) < BYTES
    shown = words(page)
    assert all(name in shown for name in names) and "20 of 1000 classes" in shown
