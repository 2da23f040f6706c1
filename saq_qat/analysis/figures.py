"""Pictures of landscapes, trainings and radii, as SVG and PNG beside the numbers they show."""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from saq_qat.analysis.curves import Epoch
from saq_qat.analysis.landscape import Line, Plane
from saq_qat.analysis.radius import RadiusPoint
from saq_qat.errors import SetupError
from saq_qat.train.files import write_whole
from saq_qat_runtime.bundle.result_files import write_result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "INK",
    "landscape_figure",
    "plane_figure",
    "radius_figure",
    "rendered",
    "require_matplotlib",
    "training_figure",
    "write_figure",
]

INK = "#1a1a1f"
# Okabe and Ito's colours, which colour-blind readers tell apart.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "saq-qat",  # the same picture has the same ids
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,
    "legend.frameon": False,
}
_SIZE = (5.2, 3.4)  # inches
_LEVELS = 14


def require_matplotlib() -> None:
    """Raise SetupError unless pictures can be drawn."""
    try:
        import matplotlib  # noqa: F401  # only whether it is there
    except ImportError as error:
        raise SetupError(
            "Pictures are drawn by Matplotlib, which is not installed. pip install 'saq-qat[analysis]'"
        ) from error


def write_figure(
    draw: Callable[[], "Figure"], values: Mapping[str, Any], folder: Path, name: str
) -> list[Path]:
    """Write name.json with what is shown, then name.svg and name.png; gives the files.

    Raises:
        ResultError: a number is not finite, or the numbers cannot be written. SaqError: a picture cannot be.
    """
    written = [folder / f"{name}.json"]
    write_result(written[0], values)
    for suffix, content in rendered(draw).items():
        written.append(folder / f"{name}.{suffix}")
        write_whole(written[-1], content)
    return written


def rendered(
    draw: Callable[[], "Figure"],
    suffixes: Iterable[Literal["svg", "png"]] = ("svg", "png"),
    *,
    behind_svg: str = "white",
) -> dict[str, bytes]:
    """A picture in the house style, drawn once, as files of these kinds; it gives the same bytes each time.

    Args:
        behind_svg: colour of an SVG's background; ``none`` leaves that of the page. A PNG's is white.
    """
    import matplotlib

    files: dict[str, bytes] = {}
    with matplotlib.rc_context(rc=_STYLE):
        figure = draw()
        for suffix in suffixes:
            content = io.BytesIO()
            colour, metadata = (
                (behind_svg, {"Date": None, "Creator": None}) if suffix == "svg" else ("white", None)
            )
            figure.savefig(content, format=suffix, dpi=160, facecolor=colour, metadata=metadata)
            files[suffix] = content.getvalue()
    return files


def landscape_figure(lines: Mapping[str, Line]) -> "Figure":
    """Loss along one direction, all runs in one plot (paper Figure 1, in one dimension)."""
    figure, (axes,) = _figure(1)
    for (label, line), colour in _coloured(lines):
        axes.plot(line.steps, line.losses, color=colour, label=label, linewidth=1.4)
    _log_scale(axes)
    axes.set_xlabel("step along a filter-normalised direction")
    axes.set_ylabel("loss, training images")
    axes.legend()
    return figure


def plane_figure(planes: Mapping[str, Plane]) -> "Figure":
    """Contours of the loss over two directions, one plot a run, levels shared (paper Figures 1, B, C)."""
    figure, all_axes = _figure(len(planes))
    losses = [loss for plane in planes.values() for row in plane.losses for loss in row]
    levels = _levels(min(losses), max(losses))
    shown = None
    for axes, (label, plane) in zip(all_axes, planes.items(), strict=True):
        shown = axes.contourf(
            plane.steps, plane.steps, plane.losses, levels=levels, norm="log", cmap="viridis"
        )
        axes.contour(plane.steps, plane.steps, plane.losses, levels=levels, colors=INK, linewidths=0.5)
        axes.plot([0], [0], "+", color="white", markersize=8)
        axes.set_aspect("equal")
        axes.set_title(label, loc="left")
        axes.set_xlabel("step along the first direction")
        axes.set_ylabel("along the second")
    if shown is not None:
        figure.colorbar(shown, ax=list(all_axes), label="loss, training images", format="%.3g", shrink=0.8)
    return figure


def _levels(low: float, high: float) -> list[float]:
    """Equal steps of the logarithm, from the lowest loss to the highest."""
    low = max(low, 1e-8)
    high = max(high, low * 1.001)
    return [low * (high / low) ** (index / _LEVELS) for index in range(_LEVELS + 1)]


def training_figure(runs: Mapping[str, Sequence[Epoch]]) -> "Figure":
    """Losses by epoch (paper Figure 3), both cosines (Figure 4), and how much losses fluctuate."""
    figure, (losses, cosines, turns, fluctuation) = _figure(4)
    for (label, epochs), colour in _coloured(runs):
        _plot(losses, epochs, "val_loss", color=colour, label=label)
        _plot(losses, epochs, "train_loss", color=colour, linestyle="--")
        _plot(cosines, epochs, "cosine", color=colour, label=label)
        _plot(turns, epochs, "step_cosine", color=colour, label=label)
        _plot(fluctuation, epochs, "fluctuation", color=colour, label=label)
    _log_scale(losses)
    losses.legend()
    for axes in (cosines, turns):
        axes.set_ylim(min(0.0, axes.get_ylim()[0]), 1.0)
    for axes, title in (
        (losses, "loss: validation (solid), training (dashed)"),
        (cosines, "cosine of g_s and g, perturbed and not"),
        (turns, "cosine of consecutive gradients"),
        (fluctuation, "mean change of the loss between logged steps"),
    ):
        axes.set_title(title, loc="left")
        axes.set_xlabel("epoch")
        axes.set_xlim(losses.get_xlim())
        axes.locator_params(axis="x", integer=True)
        if not axes.has_data():
            axes.text(0.5, 0.5, "not in these logs", transform=axes.transAxes, ha="center", color=INK)
    return figure


def _plot(axes: "Axes", epochs: Sequence[Epoch], key: str, **style: Any) -> None:
    points = [(epoch.number, getattr(epoch, key)) for epoch in epochs if getattr(epoch, key) is not None]
    if points:
        numbers, values = zip(*points, strict=True)
        axes.plot(numbers, values, marker=".", markersize=4.0, linewidth=1.2, **style)


def radius_figure(points: Sequence[RadiusPoint]) -> "Figure":
    """Accuracy by rho: every run's point and the mean of its radius; dashed, without a perturbation
    (paper Figure A)."""
    figure, (axes,) = _figure(1)
    moved = [(point.rho, point.top1) for point in points if point.rho is not None]
    for rho, top1 in moved:
        axes.plot([rho], [top1], "o", color=_COLOURS[0], alpha=0.6)
    radii = sorted({rho for rho, _ in moved})
    means = [fmean(top1 for rho, top1 in moved if rho == radius) for radius in radii]
    axes.plot(radii, means, "-_", markersize=14, color=_COLOURS[0], label="mean")
    still = [point.top1 for point in points if point.rho is None]
    if still:
        axes.plot([0.0] * len(still), still, "o", color=INK, alpha=0.6)
        axes.axhline(fmean(still), color=INK, linestyle="--", linewidth=1.0, label="no perturbation, mean")
    axes.set_xlabel("rho")
    accuracy = "deployed top-1 %" if all(point.deployed for point in points) else "top-1 %"
    taken = sorted({point.checkpoint for point in points})
    axes.set_ylabel(f"{accuracy}, checkpoint {' or '.join(taken)}")
    axes.legend()
    return figure


def _log_scale(axes: "Axes") -> None:
    """With plain numbers: names of runs may hold what would be read as formulae."""
    from matplotlib.ticker import LogFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))


def _figure(count: int) -> tuple["Figure", Sequence["Axes"]]:
    """A figure with so many plots, two in a row."""
    from matplotlib.figure import Figure

    columns = min(2, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(_SIZE[0] * columns, _SIZE[1] * rows), layout="constrained")
    every = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for unused in every[count:]:
        unused.remove()
    return figure, every[:count]


def _coloured(items: Mapping[str, Any]) -> list[tuple[tuple[str, Any], str]]:
    return [(item, _COLOURS[index % len(_COLOURS)]) for index, item in enumerate(items.items())]
