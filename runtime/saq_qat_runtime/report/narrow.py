"""Columns and sentences in the 80 columns of a terminal."""

import textwrap
from collections.abc import Collection, Iterable, Sequence

from saq_qat_runtime.report.text import aligned

__all__ = ["COLUMNS", "WIDTH", "column_lines", "fitted"]

COLUMNS = 80
WIDTH = COLUMNS - 2
"""Of what stands in a section, which is indented by two."""

_NARROWEST = 20  # columns that words are wrapped in


def column_lines(
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    words: Collection[int] = (0,),
    width: int = WIDTH,
) -> list[str]:
    """A table as lines: columns for which there is no room stand in a table of their own below, with the
    first column again; a last column of words goes on below itself.

    Args:
        words: columns that hold words; the others hold numbers.
    """
    lines: list[str] = []
    for columns in _groups(names, rows, words, width):
        left = [index for index, column in enumerate(columns) if column in words]
        header = [names[column] if column else "" for column in columns]
        lines += [""] if lines else []
        lines += _wrapped(header, [[row[column] for column in columns] for row in rows], left, width)
    return lines


def _groups(
    names: Sequence[str], rows: Sequence[Sequence[str]], words: Collection[int], width: int
) -> list[list[int]]:
    """Columns that stand side by side, the first among them each time."""
    widths = [
        max(map(len, [name if column else "", *(row[column] for row in rows)]))
        for column, name in enumerate(names)
    ]
    groups, used, wraps = [[0]], widths[0], False
    for column, own in enumerate(widths[1:], 1):
        least = min(own, _NARROWEST) if column in words else own
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
