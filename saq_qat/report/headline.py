"""The facts a reader looks for first, as labels and figures: what stands at the top of pages and cards."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from saq_qat.report.accuracy import AccuracyRow, accuracy_rows, flip_interval
from saq_qat.report.collect import Collected
from saq_qat.report.verdict import comparisons, integer_products
from saq_qat_runtime.bench.paired import Ratio
from saq_qat_runtime.bench.record import FLOAT, STATIC_INT8, Bench, Timing
from saq_qat_runtime.report.text import counted, megabytes, milliseconds, percent, times

__all__ = ["Fact", "deployed_row", "facts", "first_timing", "row_of"]

Tone = Literal["good", "bad", "plain"]


@dataclass(frozen=True)
class Fact:
    """A figure under its label, and what stands beside it; ``tone``: whether it speaks for the bundle."""

    label: str
    value: str
    detail: str
    tone: Tone = "plain"


def facts(known: Collected) -> tuple[Fact, ...]:
    """Accuracy, flips, proof, speed beside float32 and beside static int8, size, integer share.

    What was not measured has a dash, and says by which command it is.
    """
    return (
        _accuracy(known),
        _flips(known),
        _proof(known),
        *_speeds(known),
        _size(known),
        _integer(known),
    )


def row_of(known: Collected, form: str) -> AccuracyRow:
    """Accuracy of one form of the network, by the names of ``accuracy_rows``."""
    return next(row for row in accuracy_rows(known) if row.form == form)


def deployed_row(known: Collected) -> AccuracyRow:
    """Accuracy of what ships: on ONNX Runtime, else of the deploy view."""
    engine = row_of(known, "ONNX Runtime")
    return engine if engine.top1 is not None else row_of(known, "deploy view")


def first_timing(bench: Bench | None, candidate: str | None = None) -> Timing | None:
    """Of a candidate, or else the bundle, at the first batch size that was measured."""
    if bench is None or not bench.batches:
        return None
    return bench.timing(bench.bundle if candidate is None else candidate, bench.batches[0])


def _accuracy(known: Collected) -> Fact:
    row = deployed_row(known)
    others = ", ".join(f"{form} {_percent(row_of(known, form).top1)}" for form in ("float", "fake-quant"))
    return Fact("Accuracy, deployed", _percent(row.top1), f"{others} (top-1, {row.form})")


def _percent(value: float | None) -> str:
    return "not measured" if value is None else f"{percent(value)} %"


def _flips(known: Collected) -> Fact:
    if known.proof is None:
        return Fact("Predictions that flip", "not measured", "saq-qat verify counts them")
    found = known.proof.agreement
    low, high = flip_interval(found.flips, found.images)
    share = f"{found.flips / found.images:.2%}, 95 % interval {low:.2%} to {high:.2%}"
    count = f"{found.flips:,} of {found.images:,}"
    return Fact("Predictions that flip", count, f"deployed against fake-quant; {share}")


def _proof(known: Collected) -> Fact:
    hard = [comparison for comparison in comparisons(known) if comparison.hard]
    if not hard:
        return Fact("Integers proved", "not yet", "saq-qat export proves them")
    passed = sum(comparison.passed for comparison in hard)
    codes = f"{hard[0].mismatches:,} of {hard[0].compared:,} codes differ"
    detail = f"{codes}; {passed} of {len(hard)} hard comparisons pass"
    good = passed == len(hard)
    return Fact("Integers proved", "yes" if good else "NO", detail, "good" if good else "bad")


def _speeds(known: Collected) -> Iterator[Fact]:
    timing = first_timing(known.bench)
    for name, key in (("float32", FLOAT), ("static int8", STATIC_INT8)):
        label, other = f"Speed beside {name}", first_timing(known.bench, key)
        if timing is None or known.bench is None:
            yield Fact(label, "not measured", "saq-qat bench measures it")
            continue
        ratio = timing.over_float if key == FLOAT else timing.over_int8
        if ratio is None or other is None:
            yield Fact(label, "not measured", f"{name} took no part in the measurement")
        else:
            yield Fact(label, times(ratio.median), _beside(timing, other, known.bench), _tone(ratio))


def _beside(timing: Timing, other: Timing, bench: Bench) -> str:
    own, theirs = (milliseconds(t.latency.median_ms) for t in (timing, other))
    threads = counted(bench.threads, "thread")
    return f"{own} ms against {theirs} ms; ONNX Runtime, batch {timing.batch}, {threads}"


def _tone(ratio: Ratio) -> Tone:
    return "good" if ratio.median >= 1 else "bad"


def _size(known: Collected) -> Fact:
    if known.manifest is None:
        return Fact("Size of the file", "none yet", "saq-qat export writes it")
    sizes = known.manifest.sizes
    target, count = next(iter(sizes.file_bytes.items()))
    smaller = f"{times(sizes.float_bytes / count)} smaller than {megabytes(sizes.float_bytes)} in float32"
    return Fact("Size of the file", megabytes(count), f"{smaller} (for {target})")


def _integer(known: Collected) -> Fact:
    count = integer_products(known)
    if count is None:
        return Fact("Integer products", "not counted", "saq-qat verify and saq-qat bench count them")
    whole = count.integer == count.total
    detail = "convolutions and products on integer kernels, in the engine's own graph"
    return Fact("Integer products", f"{count.integer} of {count.total}", detail, "good" if whole else "bad")
