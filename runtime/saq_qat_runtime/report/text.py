"""Numbers as people read them, and tables of plain text."""

from collections.abc import Collection, Iterable, Iterator, Sequence

__all__ = [
    "NOT_MEASURED",
    "RATE",
    "RATE_NOTE",
    "aligned",
    "counted",
    "megabytes",
    "milliseconds",
    "percent",
    "printable",
    "rate",
    "section",
    "shortened",
    "times",
]

NOT_MEASURED = "-"
RATE = "images/s at median"
RATE_NOTE = f"{RATE}: the batch size divided by the median latency"


def aligned(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, left: Collection[int] = (0,)
) -> list[str]:
    """Lines of a table, two spaces between columns; those in ``left`` hold words, the others numbers."""
    table = [header, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    return ["  ".join(_cells(row, widths, left)).rstrip() for row in table]


def _cells(row: Sequence[str], widths: Sequence[int], left: Collection[int]) -> Iterator[str]:
    for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.ljust(width) if column in left else cell.rjust(width)


def section(title: str, lines: Iterable[str]) -> list[str]:
    """A titled block, set off by an empty line and indented by two spaces."""
    return ["", title, *(f"  {line}".rstrip() for line in lines)]


def printable(text: str) -> str:
    """Text that may hold words from outside: a question mark for each character that a terminal obeys.

    Lines stay lines.
    """
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


def shortened(name: str, width: int) -> str:
    """A name from outside on one line: at most ``width`` characters, without those a terminal obeys."""
    shown = printable(name.replace("\n", "?"))
    return shown if len(shown) <= width else f"{shown[: width - 3]}..."


def counted(count: int, noun: str) -> str:
    """Such as ``1 thread`` or ``2 threads``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def milliseconds(value: float | None) -> str:
    """Three significant figures; a dash where the samples were too few to say."""
    if value is None:
        return NOT_MEASURED
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def rate(value: float) -> str:
    """Images a second: whole from 100 on, else three significant figures."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def times(value: float | None) -> str:
    """A ratio, as 3.38x."""
    return NOT_MEASURED if value is None else f"{value:.2f}x"


def percent(value: float | None) -> str:
    """Two decimals of a percentage."""
    return NOT_MEASURED if value is None else f"{value:.2f}"


def megabytes(count: float | None) -> str:
    """Bytes in units of 10^6."""
    return NOT_MEASURED if count is None else f"{count / 1e6:.2f} MB"
