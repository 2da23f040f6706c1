"""A card for model hubs: metadata that parses, figures that are the report's, strings that stay text."""

import dataclasses
import re

from ruamel.yaml import YAML

from saq_qat.report.collect import Collected
from saq_qat.report.html.render import escape_markdown
from saq_qat.report.model_card import model_card

HOSTILE = "<img src=x onerror=alert(1)> [a](http://b) `c` | d\n# e\n---\n"


def test_the_head_of_a_card_is_metadata_with_the_deployed_accuracy(complete: Collected) -> None:
    card = model_card(complete)
    _, head, body = card.split("---\n", 2)
    found = YAML(typ="safe").load(head)
    assert found["pipeline_tag"] == "image-classification" and "license" not in found
    (result,) = found["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == 0.875
    for part in ("87.50 %", "Session.load", "1 of 40", "Speed beside static int8"):
        assert part in body
    blocks = re.split(r"\n{2,}", body.strip())
    assert all(not block.startswith("## ") or block.count("\n") == 0 for block in blocks)


def test_strings_from_outside_mean_nothing_to_markdown(complete: Collected) -> None:
    assert complete.manifest is not None
    manifest = dataclasses.replace(complete.manifest, labels=(HOSTILE,) * 10)
    recipe = complete.recipe.model_copy(update={"name": HOSTILE})
    card = model_card(dataclasses.replace(complete, manifest=manifest, recipe=recipe))
    _, head, body = card.split("---\n", 2)
    assert YAML(typ="safe").load(head)["model-index"][0]["name"] == HOSTILE
    assert not re.search(r"(?<!\\)<img|(?<!\\)\[a|^# e|^---", body, re.MULTILINE)
    assert escape_markdown("a\n*b*") == r"a \*b\*"


def test_a_run_without_a_bundle_has_a_card_that_says_so(complete: Collected) -> None:
    bare = dataclasses.replace(
        complete, manifest=None, proof=None, bench=None, bundle_sha256=None, graph=None
    )
    assert "**INCOMPLETE**: no bundle yet" in model_card(bare)
