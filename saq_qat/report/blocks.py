"""Tables of named rows by block of the network: names within their block, blocks with equal rows once."""

import re
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby

from saq_qat_runtime.report.text import aligned

__all__ = ["Block", "Row", "block_table", "blocks_of"]

Row = Sequence[str | float]
"""Cells, the name first. Numbers may differ between blocks that count as alike: their range is shown."""

_NUMBERED = re.compile(r"(?P<prefix>.+?)[._](?P<index>\d+)[._].")
_NARROWEST = 16


@dataclass(frozen=True)
class Block:
    """Rows of blocks ``first`` to ``last``, which are alike; without a prefix, one row outside any block."""

    prefix: str
    first: int
    last: int
    rows: tuple[tuple[str, ...], ...]

    @property
    def title(self) -> str:
        """Such as ``blocks.0 to blocks.11, 12 alike``; empty for rows outside blocks."""
        if not self.prefix:
            return ""
        if self.first == self.last:
            return f"{self.prefix}.{self.first}"
        count = self.last - self.first + 1
        return f"{self.prefix}.{self.first} to {self.prefix}.{self.last}, {count} alike"


@dataclass(frozen=True)
class _Run:
    """Neighbouring blocks with equal rows; no prefix for a row outside any block."""

    prefix: str
    numbers: list[int]
    bodies: list[list[Row]]


def blocks_of(rows: Sequence[Row], *, fold: bool = True) -> list[Block]:
    """Group consecutive rows by the first number in their names, and merge neighbours whose rows are equal.

    ``blocks.0.attn.q`` and ``blocks_0_norm1`` belong to block 0 of ``blocks`` and become ``attn.q`` and
    ``norm1``, in every cell of the block; the block before is named with its numbers, ``blocks_{0..10}_add``.

    Args:
        fold: merge neighbours; else each block stands alone.
    """
    found: list[_Run] = []
    for key, group in groupby(rows, key=lambda row: _block(str(row[0]))):
        members = list(group)
        if fold and found and key is not None and _follows(found[-1], key, members):
            found[-1].numbers.append(key[1])
            found[-1].bodies.append(members)
        elif key is None:
            found += [_Run("", [0], [[row]]) for row in members]
        else:
            found.append(_Run(key[0], [key[1]], [members]))
    return [_merged(run) for run in found]


def block_table(
    header: Sequence[str],
    rows: Sequence[Row],
    *,
    left: Collection[int] = (0,),
    fold: bool = True,
    width: int | None = None,
) -> list[str]:
    """The rows as lines of a table, each block under its title.

    Args:
        left: columns of words; the others hold numbers.
        width: columns of the terminal; the last cell of a row goes on below itself where it is longer.
    """
    blocks = blocks_of(rows, fold=fold)
    cells: list[Sequence[str]] = [
        [f"  {row[0]}" if b.prefix else row[0], *row[1:]] for b in blocks for row in b.rows
    ]
    if len(header) - 1 not in left:
        widest = max(len(row[-1]) for row in [header, *cells])
        header = [*header[:-1], header[-1].rjust(widest)]
        cells = [[*row[:-1], row[-1].rjust(widest)] for row in cells]
    starts = aligned([*header[:-1], ""], [[*row[:-1], ""] for row in cells], left=left)
    indent = max(map(len, aligned([*header[:-1], "|"], [[*row[:-1], "|"] for row in cells], left=left))) - 1
    body = [_wrapped(start, row[-1], indent, width) for start, row in zip(starts[1:], cells, strict=True)]
    lines = _wrapped(starts[0], header[-1], indent, None)
    for block in blocks:
        lines += [block.title] if block.title else []
        lines += [line for _ in block.rows for line in body.pop(0)]
    return lines


def _wrapped(start: str, cell: str, indent: int, width: int | None) -> list[str]:
    if width is None or len(cell) <= width - indent:
        return [f"{start:{indent}}{cell}".rstrip()]
    room = max(width - indent, _NARROWEST)
    first, *rest = textwrap.wrap(cell, room, break_long_words=False, break_on_hyphens=False)
    return [f"{start:{indent}}{first}".rstrip(), *(" " * indent + line for line in rest)]


def _block(name: str) -> tuple[str, int] | None:
    """Prefix, dots as underscores, and number of the block that a layer or graph node belongs to."""
    match = _NUMBERED.match(name)
    return None if match is None else (match["prefix"].replace(".", "_"), int(match["index"]))


def _follows(run: _Run, key: tuple[str, int], members: list[Row]) -> bool:
    """Whether a block goes on where a run stops, with equal rows."""
    last = (run.prefix, run.numbers[-1])
    return (last[0], last[1] + 1) == key and _words(key, members) == _words(last, run.bodies[-1])


def _words(key: tuple[str, int], members: list[Row]) -> list[list[str]]:
    """The rows of a block without numbers: neither those of their cells nor that of the block."""
    return [[_within(cell, key, "") if isinstance(cell, str) else "" for cell in row] for row in members]


def _within(cell: str, key: tuple[str, int], before: str) -> str:
    """A cell with the names of a block cut to what is within it; ``before`` stands for the block before."""
    prefix = r"(?<![\w.])" + re.escape(key[0]).replace("_", "[._]") + "[._]"
    cell = re.sub(rf"{prefix}{key[1]}[._](?=\w)", "", cell)
    return re.sub(rf"({prefix}){key[1] - 1}(?=[._]\w)", rf"\g<1>{before}", cell)


def _merged(run: _Run) -> Block:
    first, last = run.numbers[0], run.numbers[-1]
    name = _NUMBERED.match(str(run.bodies[0][0][0]))
    if name is None or len(run.bodies) == len(run.bodies[0]) == 1:
        return Block("", 0, 0, (tuple(_range([cell]) for cell in run.bodies[0][0]),))
    before = f"{{{first - 1}..{last - 1}}}" if last > first else str(first - 1)
    rows = tuple(
        tuple(_within(_range(cells), (run.prefix, first), before) for cells in zip(*alike, strict=True))
        for alike in zip(*run.bodies, strict=True)
    )
    return Block(name["prefix"], first, last, rows)


def _range(cells: Sequence[str | float]) -> str:
    numbers = [cell for cell in cells if not isinstance(cell, str)]
    if len(numbers) < len(cells):
        return str(cells[0])
    low, high = f"{min(numbers):.3g}", f"{max(numbers):.3g}"
    return low if low == high else f"{low} .. {high}"
