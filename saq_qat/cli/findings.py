"""How findings of legality rules look on a terminal."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from saq_qat.errors import LegalityError
from saq_qat_runtime.report.narrow import fitted
from saq_qat_runtime.report.text import printable

if TYPE_CHECKING:
    from saq_qat.quant.plan.plan import Finding

__all__ = ["count_errors", "count_levels", "listed", "one_line", "print_findings", "refuse"]

_LEVELS = ("error", "warning", "note")
_PLACES_SHOWN = 6


def print_findings(findings: "Sequence[Finding]") -> None:
    """Errors first; findings that say the same of several places are one."""
    for level in _LEVELS:
        alike: dict[tuple[str, str, str], list[str]] = {}
        for finding in findings:
            if finding.level == level:
                alike.setdefault((finding.rule, finding.message, finding.fix), []).append(finding.where)
        for (rule, message, fix), places in alike.items():
            line = one_line(f"{level} {rule} {listed(places)}: {message} {fix}".rstrip())
            typer.echo("\n".join(fitted([line])))


def one_line(sentence: str) -> str:
    """A sentence that may hold names from outside: on one line, without characters that a terminal obeys."""
    return printable(" ".join(sentence.split("\n")))


def listed(places: Sequence[str]) -> str:
    """The first places by name, the rest by number."""
    more = len(places) - _PLACES_SHOWN
    shown = ", ".join(places[:_PLACES_SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown


def count_levels(findings: "Iterable[Finding]") -> str:
    """Such as ``2 errors, 1 warning, no notes``."""
    levels = [finding.level for finding in findings]
    counts = ((level, sum(found == level for found in levels)) for level in _LEVELS)
    return ", ".join(f"{count or 'no'} {level}{'' if count == 1 else 's'}" for level, count in counts)


def count_errors(findings: "Iterable[Finding]") -> int:
    """How many of them stop deployment."""
    return sum(finding.level == "error" for finding in findings)


def refuse(file: Path, findings: "Iterable[Finding]") -> None:
    """Raise LegalityError if there is an error among what was found of ``file``."""
    errors = count_errors(findings)
    if errors:
        raise LegalityError(f"{file}: {errors} error(s) above stop it from being deployed.")
