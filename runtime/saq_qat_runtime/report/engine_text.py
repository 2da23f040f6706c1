"""A built TensorRT engine as text: with what it was built, how much of it is int8, where it lies."""

from collections.abc import Sequence
from pathlib import Path

from saq_qat_runtime.tensorrt.build.engine import BuiltEngine
from saq_qat_runtime.tensorrt.build.flavours import FLAVOUR_NAMES

__all__ = ["build_text", "engine_text", "listed"]

_LAYERS_SHOWN = 10
_PLACES_SHOWN = 6


def engine_text(folder: Path, built: BuiltEngine) -> list[str]:
    """What was built, the batch sizes it takes, and its file in `folder`."""
    record = built.record
    lines = build_text(built)
    for profile in record.profiles:
        sizes = (profile.minimum[0], profile.optimum[0], profile.maximum[0])
        lines.append(f"{profile.input}: batch {sizes[0]} to {sizes[2]}, fastest at {sizes[1]}")
    return [*lines, f"engine: {folder / record.file.name} ({record.file.bytes / 1e6:.2f} MB)"]


def build_text(built: BuiltEngine) -> list[str]:
    """With what an engine was built, and how much of it is int8."""
    record = built.record
    unquantized = [layer.node for layer in record.audit.layers if not layer.expected]
    where = record.gpu or f"no GPU here, for compute capability {', '.join(record.compute_capabilities)}"
    library = FLAVOUR_NAMES[record.flavour]
    return [
        *(f"note: {note}" for note in built.log),
        *(f"float: {layer.node}: {layer.reason}" for layer in record.audit.missed[:_LAYERS_SHOWN]),
        *([f"float, because not quantized: {listed(unquantized)}"] if unquantized else []),
        f"built with {library} {record.version} in {record.build_seconds:.1f} s ({where})",
        f"{record.audit.integer}/{record.audit.total} convolutions and products are int8 layers, says the "
        f"{record.audit.source}",
    ]


def listed(places: Sequence[str]) -> str:
    """The first places by name, the rest by number."""
    more = len(places) - _PLACES_SHOWN
    shown = ", ".join(places[:_PLACES_SHOWN])
    return f"{shown} and {more} more" if more > 0 else shown
