"""Every rule finds its bad graph, and finds nothing in the mended one."""

import pytest

from saq_qat_export.lint import RULES, LintSettings, lint
from tests.export.lint.lint_cases import CASES, SETTINGS
from tests.export.lint.lint_speed_cases import SPEED_CASES

ALL = {**CASES, **SPEED_CASES}
LEVELS = {rule.id: rule.level for rule in RULES}


def findings(rule: str, good: bool) -> list[tuple[str, str]]:
    """Rules and levels, but for float32 between the layers, which all graphs but two have."""
    found = lint(ALL[rule](good), SETTINGS.get(rule, LintSettings()))
    return sorted({(f.rule, f.level) for f in found if rule == "TRT114" or f.rule != "TRT114"})


def test_the_rules_are_those_of_the_table_and_each_has_its_graphs() -> None:
    numbers = [*range(1, 21), *range(101, 118)]
    assert [rule.id for rule in RULES] == [f"TRT{number:03}" for number in numbers]
    assert list(ALL) == [rule.id for rule in RULES]
    assert all(rule.title.endswith(".") and rule.check.__doc__ for rule in RULES)
    assert all(str(rule.check.__doc__).startswith(f"{rule.id}: ") for rule in RULES)


@pytest.mark.parametrize("rule", ALL)
def test_a_bad_graph_breaks_its_rule_and_no_other(rule: str) -> None:
    assert findings(rule, good=False) == [(rule, LEVELS[rule])]


@pytest.mark.parametrize("rule", ALL)
def test_the_mended_graph_has_no_finding(rule: str) -> None:
    assert findings(rule, good=True) == []


@pytest.mark.parametrize("rule", ALL)
def test_findings_say_where_why_and_how_to_mend_it(rule: str) -> None:
    found = [f for f in lint(ALL[rule](False), SETTINGS.get(rule, LintSettings())) if f.rule == rule]
    assert all(f.where and f.message.endswith(".") for f in found)
    assert all(f.fix.endswith(".") or f.level == "note" for f in found)
