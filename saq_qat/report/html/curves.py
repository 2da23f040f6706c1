"""Learning curves of one training, or of several laid over each other."""

from collections.abc import Mapping, Sequence
from typing import Any

from saq_qat.report.html.svg import Band, Chart, Line, Point, chart, thinned

__all__ = ["learning_curves"]

Log = Sequence[Mapping[str, Any]]


def learning_curves(logs: Mapping[str, Log], most: int) -> tuple[tuple[Chart, str], ...]:
    """Losses and accuracies by epoch, counted over all stages, each with a line that explains it.

    Args:
        logs: lines of each log.jsonl by the name of its run. One alone shows its stages too.
        most: points of a curve, at most.
    """
    epochs = {name: [line for line in log if line.get("event") == "epoch"] for name, log in logs.items()}
    bands = _stages(next(iter(epochs.values()))) if len(epochs) == 1 else ()
    losses = _lines(epochs, (("val_loss", "validation"), ("loss", "training")), most)
    answers = _lines(epochs, (("top1", "fake-quant or float"), ("deploy_top1", "deploy view")), most)
    drawn = (
        (
            chart("Loss", "epoch", "cross entropy", lines=losses, bands=bands, log_y=True, whole_x=True),
            "Solid: validation images; dashed: training images.",
        ),
        (
            chart("Accuracy", "epoch", "top-1 %", lines=answers, bands=bands, whole_x=True),
            "Of validation images. Solid: the network as it trains; dashed: its deploy view.",
        ),
    )
    return tuple((picture, caption) for picture, caption in drawn if picture is not None)


def _lines(epochs: Mapping[str, Log], quantities: Sequence[tuple[str, str]], most: int) -> list[Line]:
    """A solid curve for each run, and a dashed one of the second quantity.

    One run alone has a colour for each quantity; several have a colour each, and are listed once.
    """
    found = []
    for dashed, (key, what) in enumerate(quantities):
        for number, (name, lines) in enumerate(epochs.items()):
            points: list[Point] = [
                (float(epoch), float(line[key]))
                for epoch, line in enumerate(lines, 1)
                if line.get(key) is not None
            ]
            alone = len(epochs) == 1
            label, colour = (what, dashed) if alone else (f"{name}, {what}" if dashed else name, number)
            if points:
                found.append(Line(label, colour, thinned(points, most), bool(dashed), alone or not dashed))
    return found


def _stages(epochs: Log) -> tuple[Band, ...]:
    """Where each stage begins and ends; a stage begins where the kind changes, or epochs count from 1."""
    starts: list[tuple[int, str]] = []
    number = 0
    for number, line in enumerate(epochs, 1):
        if not starts or line.get("stage") != starts[-1][1] or line.get("epoch") == 1:
            starts.append((number, str(line.get("stage"))))
    ends = [*(start for start, _ in starts[1:]), number + 1][: len(starts)]
    return tuple(Band(start - 0.5, end - 0.5, name) for (start, name), end in zip(starts, ends, strict=True))
