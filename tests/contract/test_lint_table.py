"""The rules in export/README.md are the rules of the code."""

import re
from pathlib import Path

from saq_qat_export.lint import RULES

README = Path(__file__).parents[2] / "export" / "README.md"


def test_the_table_lists_every_rule_with_its_level_and_title() -> None:
    _, section = README.read_text(encoding="utf-8").split("## TensorRT rules\n")
    table = re.findall(r"^\| (TRT\d+) \| (\w+) \| (.+?) \| .+ \|$", section, flags=re.MULTILINE)
    assert table == [(rule.id, rule.level, rule.title.removesuffix(".")) for rule in RULES]
