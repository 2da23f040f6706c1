"""Every layer and every quantized tensor: bits, clip level, codes used, noise, mismatches, a histogram."""

import math
from collections import Counter
from collections.abc import Sequence

from saq_qat.report.collect import Collected
from saq_qat.report.grids import Grids, GridUse
from saq_qat.report.html.svg import bars
from saq_qat.report.tables import Histogram, Table
from saq_qat_export.proof.comparison import Comparison
from saq_qat_runtime.bundle.records import LayerRecord, TensorRecord
from saq_qat_runtime.report.text import NOT_MEASURED

__all__ = ["activation_table", "layer_table", "mismatches"]

_WIDTH, _HEIGHT = 160.0, 40.0
_MOST_TICKS = 40


def layer_table(known: Collected, grids: Grids | None, most: int) -> Table | None:
    """Layers with their weights; the first ``most`` with histograms. None if nothing is known of them."""
    layers = () if known.manifest is None else known.manifest.layers
    uses = {} if grids is None else {use.name: use for use in grids.weights}
    records = {layer.name: layer for layer in layers}
    names = list(dict.fromkeys([*records, *uses]))
    columns = (
        "layer",
        "runs as",
        "bits",
        "codes",
        "clip level",
        "codes used",
        "SQNR dB",
        "clipped %",
        "weights",
    )
    rows = [
        (
            name,
            *_layer(records.get(name)),
            *_grid(uses.get(name), with_bits=_bits(records.get(name))),
            picture,
        )
        for name, picture in zip(names, _pictures([uses.get(name) for name in names], most), strict=True)
    ]
    bad = tuple(i for i, name in enumerate(names) if (record := records.get(name)) and not record.integer)
    return Table(columns, tuple(rows), (0, 1, 3), bad, _cut(len(names), most)) if rows else None


def activation_table(known: Collected, grids: Grids | None, most: int) -> Table | None:
    """Quantized tensors in the order of the network; None if nothing is known of them."""
    tensors = () if known.manifest is None else known.manifest.tensors
    uses = {} if grids is None else {use.name: use for use in grids.activations}
    records = {tensor.name: tensor for tensor in tensors}
    names = list(dict.fromkeys([*records, *uses]))
    wrong = None if known.proof is None else mismatches(known.proof.comparisons)
    columns = (
        "tensor",
        "bits",
        "codes",
        "clip level",
        "codes used",
        "SQNR dB",
        "clipped %",
        "mismatches",
        "activations",
    )
    pictures = _pictures([uses.get(name) for name in names], most)
    rows, bad = [], []
    for index, (name, picture) in enumerate(zip(names, pictures, strict=True)):
        record = records.get(name)
        count = None if wrong is None or record is None else wrong[record.code_tensor]
        bad += [index] if count else []
        shown = NOT_MEASURED if count is None else f"{count:,}"
        rows.append((name, *_grid(uses.get(name), with_bits=_stored(record)), shown, picture))
    return Table(columns, tuple(rows), (0, 2), tuple(bad), _cut(len(names), most)) if rows else None


def mismatches(comparisons: Sequence[Comparison]) -> Counter[str]:
    """Codes that differ in hard comparisons, by the name of their tensor."""
    found: Counter[str] = Counter()
    for comparison in comparisons:
        if comparison.hard:
            found.update({tensor.name: tensor.mismatches for tensor in comparison.tensors})
    return found


def _layer(record: LayerRecord | None) -> tuple[str, ...]:
    if record is None:
        return (NOT_MEASURED,)
    return (f"{record.op}, integer" if record.integer else f"{record.op}, float: {record.reason}",)


def _bits(record: LayerRecord | None) -> tuple[str, str]:
    if record is None or record.weight_bits is None:
        return NOT_MEASURED, NOT_MEASURED
    return str(record.weight_bits), record.weight_grid or NOT_MEASURED


def _stored(record: TensorRecord | None) -> tuple[str, str]:
    if record is None:
        return NOT_MEASURED, NOT_MEASURED
    codes = f"{record.code_min - record.zero_point}..{record.code_max - record.zero_point}"
    return str(record.bits), codes


def _grid(use: GridUse | None, *, with_bits: tuple[str, str]) -> tuple[str, ...]:
    """Bits, codes, clip level, codes used, noise and share of clipped values."""
    if use is None:
        return (*with_bits, *[NOT_MEASURED] * 4)
    known = with_bits if with_bits[0] != NOT_MEASURED else (str(use.bits), _codes(use))
    noise = NOT_MEASURED if use.sqnr_db is None else f"{use.sqnr_db:.1f}"
    return (*known, f"{use.clip_level:.3g}", f"{use.used} of {use.legal}", noise, f"{100 * use.clipped:.2f}")


def _codes(use: GridUse) -> str:
    return f"{use.minimum}..{use.maximum}" + (" odd" if use.step == 2 else "")


def _pictures(uses: Sequence[GridUse | None], most: int) -> list[str | Histogram]:
    shown: list[str | Histogram] = []
    for use in uses:
        drawn = sum(isinstance(each, Histogram) for each in shown)
        shown.append(NOT_MEASURED if use is None or drawn >= most else _histogram(use))
    return shown


def _histogram(use: GridUse) -> Histogram:
    def place(code: float) -> float:
        return round((code - use.low) / (use.high - use.low) * _WIDTH, 1)

    few = use.legal <= _MOST_TICKS
    codes = range(use.minimum, use.maximum + 1, use.step) if few else ()
    return Histogram(
        bars=bars([math.sqrt(count) for count in use.histogram], _WIDTH, _HEIGHT - 6),
        codes="".join(f"M{place(code):g} 34v5" for code in codes),
        ends=(place(use.minimum), place(use.maximum)),
        title=f"{use.name}: codes {_codes(use)} of {use.scale:.4g} each, clip level {use.clip_level:.4g}",
    )


def _cut(rows: int, most: int) -> str:
    return f"Histograms of the first {most} of {rows}; the others are numbers alone." if rows > most else ""
