"""The training of a run as a table: each stage with its last epoch, the teacher, the end."""

from collections.abc import Iterable
from typing import Any

from saq_qat.report.collect import Collected
from saq_qat_runtime.report.text import NOT_MEASURED, aligned, percent

__all__ = ["training_lines"]


def training_lines(known: Collected) -> list[str]:
    """What the log says: a line for each stage in its order, a teacher before, steps and time after."""
    teachers = [
        f"teacher {line['source']}: top-1 {percent(line['top1'])} %, top-5 {percent(line['top5'])} %"
        for line in known.log
        if line.get("event") == "teacher"
    ]
    stages = _last_epochs(line for line in known.log if line.get("event") == "epoch")
    if not stages:
        return [*teachers, "no epoch was finished yet"]
    header = ("stage", "epochs", "last loss", "top-1 %", "top-5 %", "deployed top-1 %")
    end = next((line for line in reversed(known.log) if line.get("event") == "end"), None)
    state = "not finished" if end is None else f"{end['step']} steps in {end['seconds']:.0f} s"
    return [*teachers, *aligned(header, map(_row, stages)), state]


def _last_epochs(epochs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last epoch of each stage; a stage begins where the kind changes, or epochs count from 1 again."""
    found: list[dict[str, Any]] = []
    for line in epochs:
        if found and line["stage"] == found[-1]["stage"] and line["epoch"] > found[-1]["epoch"]:
            found[-1] = line
        else:
            found.append(line)
    return found


def _row(line: dict[str, Any]) -> tuple[str, ...]:
    return (
        line["stage"],
        "-" if line["stage"] == "statistics" else str(line["epoch"]),
        NOT_MEASURED if line["loss"] is None else f"{line['loss']:.4f}",
        percent(line.get("top1")),
        percent(line.get("top5")),
        percent(line.get("deploy_top1")),
    )
