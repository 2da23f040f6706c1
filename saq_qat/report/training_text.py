"""The training of a run as a table: each stage with its last epoch, the teacher, the end."""

from collections.abc import Iterable, Mapping
from typing import Any

from saq_qat.report.collect import Collected
from saq_qat_runtime.report.text import NOT_MEASURED, aligned, percent

__all__ = ["last_behind_best", "training_lines"]


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
    return [*teachers, *aligned(header, map(_row, stages)), _ended(end)]


def _ended(end: Mapping[str, Any] | None) -> str:
    if end is None:
        return "not finished"
    seconds = end.get("seconds")
    return f"{end['step']} steps" + (f" in {seconds:.0f} s" if seconds is not None else "")


def last_behind_best(log: Iterable[Mapping[str, Any]]) -> list[str]:
    """A sentence if the checkpoint ``last`` is worse than ``best``, by the epochs of the last stage."""
    epochs = [line for line in log if line.get("event") == "epoch"]
    starts = [i for i, line in enumerate(epochs) if not i or _begins_stage(line, epochs[i - 1])]
    stage = [(line["epoch"], *_score(line)) for line in (epochs[starts[-1] :] if starts else [])]
    judged = [(epoch, name, score) for epoch, name, score in stage if score is not None]
    if not judged or stage[-1][2] is None:
        return []
    epoch, name, score = judged[-1]
    best_epoch, _, best = max(judged, key=lambda each: each[2])
    if score >= best:
        return []
    return [
        f"last is worse than best: {name} {percent(score)} % after epoch {epoch} of the "
        f"{epochs[-1]['stage']} stage, {percent(best)} % after epoch {best_epoch}"
    ]


def _score(line: Mapping[str, Any]) -> tuple[str, float | None]:
    deployed: float | None = line.get("deploy_top1")
    return ("top-1", line.get("top1")) if deployed is None else ("deployed top-1", deployed)


def _begins_stage(line: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    return bool(line["stage"] != before["stage"] or line["epoch"] <= before["epoch"])


def _last_epochs(epochs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The last epoch of each stage; a stage begins where the kind changes, or epochs count from 1 again."""
    found: list[dict[str, Any]] = []
    for line in epochs:
        if found and not _begins_stage(line, found[-1]):
            found[-1] = line
        else:
            found.append(line)
    return found


def _row(line: dict[str, Any]) -> tuple[str, ...]:
    return (
        line["stage"],
        "-" if line["stage"] in ("calibration", "statistics") else str(line["epoch"]),
        NOT_MEASURED if line["loss"] is None else f"{line['loss']:.4f}",
        percent(line.get("top1")),
        percent(line.get("top5")),
        percent(line.get("deploy_top1")),
    )
