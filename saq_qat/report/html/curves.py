"""Learning curves of one training, or of several laid over each other."""

from collections.abc import Mapping, Sequence
from typing import Any

from saq_qat.report.html.svg import Band, Chart, Line, Point, chart, thinned

__all__ = ["learning_curves"]

Log = Sequence[Mapping[str, Any]]


def learning_curves(logs: Mapping[str, Log], most: int) -> tuple[Chart, ...]:
    """Losses and accuracies by epoch, counted over all stages.

    Args:
        logs: lines of each log.jsonl by the name of its run. One alone shows its stages too.
        most: points of a curve, at most.
    """
    epochs = {name: [line for line in log if line.get("event") == "epoch"] for name, log in logs.items()}
    alone = len(epochs) == 1
    bands = _stages(next(iter(epochs.values()))) if alone else ()
    losses = [
        *_lines(epochs, "val_loss", "validation" if alone else "", most),
        *_lines(epochs, "loss", "training", most, dashed=True, shift=1 if alone else 0),
    ]
    answers = [
        *_lines(epochs, "top1", "fake-quant or float" if alone else "", most),
        *_lines(epochs, "deploy_top1", "deploy view", most, dashed=True, shift=1 if alone else 0),
    ]
    charts = (
        chart("Loss", "epoch", "cross entropy", lines=losses, bands=bands, log_y=True, whole_x=True),
        chart("Accuracy", "epoch", "top-1 %", lines=answers, bands=bands, whole_x=True),
    )
    return tuple(each for each in charts if each is not None)


def _lines(
    epochs: Mapping[str, Log], key: str, what: str, most: int, *, dashed: bool = False, shift: int = 0
) -> list[Line]:
    """A curve for each run that has this number; ``shift`` moves on to another colour."""
    found = []
    for colour, (name, lines) in enumerate(epochs.items()):
        points: list[Point] = [
            (float(number), float(line[key]))
            for number, line in enumerate(lines, 1)
            if line.get(key) is not None
        ]
        label = what if len(epochs) == 1 else f"{name}, {what}" if what else name
        if points:
            found.append(Line(label, colour + shift, thinned(points, most), dashed))
    return found


def _stages(epochs: Log) -> tuple[Band, ...]:
    """Where each stage begins and ends; a stage begins where the kind changes, or epochs count from 1."""
    number, starts = 0, []
    for number, line in enumerate(epochs, 1):
        if not starts or line.get("stage") != starts[-1][1] or line.get("epoch") == 1:
            starts.append((number, str(line.get("stage"))))
    ends = [start for start, _ in starts[1:]] + [number + 1]
    return tuple(Band(start - 0.5, end - 0.5, name) for (start, name), end in zip(starts, ends, strict=True))
