"""Tables and sentences in the 80 columns of a terminal."""

import textwrap
from collections.abc import Iterable, Sequence

from saq_qat.report.tables import Table
from saq_qat_runtime.report.text import aligned

__all__ = ["COLUMNS", "WIDTH", "fitted", "table_lines"]

COLUMNS = 80
WIDTH = COLUMNS - 2
"""Of what stands in a section, which is indented by two."""

_NARROWEST = 20  # columns that words are wrapped in


def table_lines(table: Table, width: int = WIDTH) -> list[str]:
    """A table as lines: columns for which there is no room stand in a table of their own below, with the
    names again; a last column of words goes on below itself. Pictures are left out."""
    rows = [[cell if isinstance(cell, str) else "" for cell in row] for row in table.rows]
    lines: list[str] = []
    for columns in _groups(table, rows, width):
        words = [index for index, column in enumerate(columns) if column in table.words]
        header = [table.columns[column] if column else "" for column in columns]
        lines += [""] if lines else []
        lines += _wrapped(header, [[row[column] for column in columns] for row in rows], words, width)
    return lines + ([table.note] if table.note else [])


def _groups(table: Table, rows: Sequence[Sequence[str]], width: int) -> list[list[int]]:
    """Columns that stand side by side, the first among them each time."""
    widths = [
        max(map(len, [name if column else "", *(row[column] for row in rows)]))
        for column, name in enumerate(table.columns)
    ]
    groups, used, wraps = [[0]], widths[0], False
    for column, own in enumerate(widths[1:], 1):
        least = min(own, _NARROWEST) if column in table.words else own
        if len(groups[-1]) > 1 and (wraps or used + 2 + least > width):
            groups.append([0])
            used = widths[0]
        groups[-1].append(column)
        wraps = used + 2 + own > width  # it is wrapped, so nothing stands behind it
        used += 2 + own
    return groups


def _wrapped(
    header: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[int], width: int
) -> list[str]:
    """Lines of a table whose last column is wrapped where it holds words."""
    whole = aligned(header, rows, left=words)
    if len(header) - 1 not in words or max(map(len, whole)) <= width:
        return whole
    before = aligned([*header[:-1], "|"], [[*row[:-1], "|"] for row in rows], left=words)
    indent = before[0].index("|")
    lines = []
    for start, last in zip(before, [header[-1], *(row[-1] for row in rows)], strict=True):
        first, *others = _split(last, max(width - indent, _NARROWEST))
        lines += [f"{start[:indent]}{first}".rstrip(), *(" " * indent + other for other in others)]
    return lines


def fitted(lines: Iterable[str], width: int = COLUMNS) -> list[str]:
    """Lines no longer than ``width``, continued below with a deeper indent.

    A longer word, such as a path, is left whole, so that it can be copied.
    """
    found: list[str] = []
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        if len(line) <= width:
            found.append(line)
            continue
        first, *others = _split(line, width, indent)
        found += [line[: len(indent) - 2] + first.lstrip(), *others]
    return found


def _split(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    ) or [""]
