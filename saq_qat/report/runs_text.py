"""Runs as lines of at most eighty columns, but for names that are longer."""

import textwrap
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from saq_qat.report.runs import RunOutline
from saq_qat_runtime.report.text import NOT_MEASURED, aligned, megabytes, percent, shortened

__all__ = ["outline_lines", "runs_lines"]

_WIDTH = 80
_HEADER = ("run", "state", "reached", "top-1 %", "deployed %", "size")


def runs_lines(outlines: Sequence[RunOutline]) -> Iterator[str]:
    """A table for each folder of runs, with the reasons of bad ends below."""
    for folder, members in groupby(outlines, key=lambda each: Path(each.run).parent):
        runs = list(members)
        yield str(folder)
        yield from (f"  {line}" for line in aligned(_HEADER, map(_row, runs), left=(0, 1, 2)))
        for run in runs:
            for why in (run.reason, run.trouble):
                if why is not None:
                    yield shortened(f"  {Path(run.run).name}: {why}", _WIDTH)
    total = sum(each.bytes for each in outlines)
    yield f"{len(outlines)} run{'' if len(outlines) == 1 else 's'}, {megabytes(total)}"


def _row(run: RunOutline) -> tuple[str, ...]:
    found = run.checkpoint
    return (
        Path(run.run).name,
        run.state,
        _reached(run),
        percent(None if found is None else found.top1),
        percent(None if found is None else found.deploy_top1),
        megabytes(run.bytes),
    )


def _reached(run: RunOutline) -> str:
    return NOT_MEASURED if run.stage is None else f"{run.stage} {run.epoch}"


def outline_lines(run: RunOutline, sizes: dict[str, int]) -> Iterator[str]:
    """One run, with what its folder holds.

    Args:
        sizes: bytes of its files and folders.
    """
    yield run.run
    yield from _field("state", f"{run.state}, at step {run.step}" + _stage(run))
    if run.reason is not None:
        yield from _field("reason", run.reason)
    yield from _field("checkpoint", "none yet" if run.checkpoint is None else str(run.checkpoint))
    if run.trouble is not None:
        yield from _field("trouble", run.trouble)
    shares = ", ".join(f"{name} {megabytes(count)}" for name, count in sizes.items() if count >= 10_000)
    yield from _field("size", f"{megabytes(run.bytes)}: {shares}" if shares else megabytes(run.bytes))
    yield from _field("next", _next_step(run))


def _next_step(run: RunOutline) -> str:
    """The command that goes on with a run."""
    if run.state == "running":
        return "it is being trained"
    if run.state != "finished":
        return f"saq-qat train --resume {run.run}"
    return f"saq-qat report {run.run}" if run.exported else f"saq-qat export {run.run}"


def _stage(run: RunOutline) -> str:
    return "" if run.stage is None else f" (stage {run.stage}, epoch {run.epoch})"


def _field(name: str, text: str) -> list[str]:
    indent = " " * 14
    shown = "".join(each if each.isprintable() else " " for each in text)
    return textwrap.wrap(
        shown,
        _WIDTH,
        initial_indent=f"  {name:10}  ",
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
