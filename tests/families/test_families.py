"""The table of families: complete, and as the results say."""

import json
import re
from typing import Any

from tests.families.__main__ import HERE, TABLE, key, table

ROWS = json.loads((HERE / "networks.json").read_text(encoding="utf-8"))
SHOWN = re.compile(r"^\| (timm|torchvision) \| (\w+) \| `([\w.]+)` \|.*\| (.+) \|$", re.MULTILINE)


def test_every_family_has_a_row_or_no_network_small_enough() -> None:
    assert len([row for row in ROWS if row["library"] == "timm"]) == 98
    written = {(library, family) for library, family, *_ in SHOWN.findall(TABLE.read_text(encoding="utf-8"))}
    assert written == {(row["library"], row["family"]) for row in ROWS if row["network"]}


def test_the_count_above_the_table_is_that_of_its_rows() -> None:
    text = TABLE.read_text(encoding="utf-8")
    results = [result for *_, result in SHOWN.findall(text) if not result.startswith("not yet")]
    exact = [result for result in results if re.fullmatch(r"\d+/\d+", result)]
    assert f"**{len(exact)} of {len(results)} are exact**" in text
    assert len(exact) >= 0.95 * len(results)


def test_a_result_is_shown_as_kernels_or_as_words() -> None:
    rows = [row for row in ROWS if row["network"]][:2]
    results: dict[str, dict[str, Any]] = {
        key(rows[0]): {"result": "exact", "integer": 3, "total": 4},
        key(rows[1]): {"result": "refused", "words": "a | b"},
    }
    text = table(rows, results)
    assert "| 3/4 |" in text and "| refused: a \\| b |" in text and "**1 of 2 are exact**" in text
