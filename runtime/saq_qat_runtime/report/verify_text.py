"""A verification on the machine at hand as one page of text, 80 columns wide."""

from collections.abc import Iterator, Sequence
from textwrap import wrap

from saq_qat_runtime.bench.interleave import LatencySummary
from saq_qat_runtime.bench.record import Bench
from saq_qat_runtime.report.bench_text import bench_warnings
from saq_qat_runtime.report.text import RATE, counted, milliseconds, rate
from saq_qat_runtime.verify.record import EngineVerification

__all__ = ["verify_text"]

_WIDTH = 80
_FLIPS_SHOWN = 10
_TENSORS_SHOWN = 5


def verify_text(found: EngineVerification, labels: Sequence[str]) -> list[str]:
    """Verdict first; then answers, codes, logits, the images that are answered otherwise, the machine.

    labels: names of the labels, in their order.
    """
    return [line for text in _lines(found, labels) for line in _wrapped(text)]


def _wrapped(text: str) -> list[str]:
    indent = " " * (len(text) - len(text.lstrip()) + 2)
    return wrap(text, _WIDTH, subsequent_indent=indent, break_on_hyphens=False) or [""]


def _lines(found: EngineVerification, labels: Sequence[str]) -> Iterator[str]:
    yield f"{found.name}: {'PASSED' if found.passed else 'FAILED'} on {found.backend} {found.version}"
    yield from (f"  {failure}" for failure in found.failures)
    if not found.gate_passed:
        yield "  the bundle failed its proof: its integers are not known to be the trained ones"
    yield ""
    yield "Answers"
    answers, limits = found.answers, found.thresholds
    yield f"  top-1 of the fake-quant network  {answers.fake_quant_top1:6.2f} %  as recorded at export"
    yield (
        f"  top-1 of this engine             {answers.engine_top1:6.2f} %  may lose "
        f"{limits.max_top1_drop:g} points"
    )
    yield (
        f"  answers that differ              {100 * answers.flip_rate:6.2f} %  {answers.flips} of "
        f"{answers.images}, {100 * limits.max_flip_rate:g} % may"
    )
    yield ""
    yield "Integers"
    yield f"  {found.integer.label}"
    yield from _codes(found)
    yield (
        f"  golden logits differ by {found.golden_difference:.3g} at most, {found.golden_tolerance:.3g} is "
        "allowed"
    )
    if found.bench is not None:
        yield ""
        yield "Latency"
        yield from _latency(found.bench)
    if answers.listed:
        yield ""
        yield "Answered otherwise"
        for flip in answers.listed[:_FLIPS_SHOWN]:
            own, trained, truth = (labels[i] for i in (flip.engine, flip.fake_quant, flip.label))
            yield f"  {flip.image}: {own}, trained network {trained}, label {truth}"
        if answers.flips > _FLIPS_SHOWN:
            yield f"  and {answers.flips - _FLIPS_SHOWN} more"
    yield ""
    yield "Machine"
    yield from _machine(found)


def _codes(found: EngineVerification) -> Iterator[str]:
    codes = found.codes
    if codes is None:
        yield f"  recorded codes {found.codes_absent}"
        return
    yield f"  recorded codes: {codes.mismatches:,} of {codes.compared:,} differ, {codes.tensors} tensors"
    for name, count in list(codes.differing.items())[:_TENSORS_SHOWN]:
        yield f"    {name}: {count:,}"


def _latency(bench: Bench) -> Iterator[str]:
    """On the CPU, then on the GPU without and with copies; what speaks against quoting it."""
    for timing in bench.timings:
        where = f"batch {timing.batch}, {counted(bench.threads, 'thread')}"
        yield _pace(where, timing.latency, timing.images_per_second)
    for own in bench.gpu.timings if bench.gpu else ():
        where = f"batch {own.batch}, {'with' if own.transfers else 'without'} copies"
        yield _pace(where, own.latency, own.images_per_second)
    yield from (f"  note: {warning}" for warning in (*bench_warnings(bench), *bench.not_run))


def _pace(where: str, latency: LatencySummary, images_per_second: float) -> str:
    low, high = milliseconds(latency.median_low_ms), milliseconds(latency.median_high_ms)
    median, slow = milliseconds(latency.median_ms), milliseconds(latency.p99_ms)
    return f"  {where}: {median} ms ({low} .. {high}), p99 {slow}, {rate(images_per_second)} {RATE}"


def _machine(found: EngineVerification) -> Iterator[str]:
    machine = found.environment
    threads = "threads as the engine chose" if found.threads is None else counted(found.threads, "thread")
    on = "on the GPU" if found.target == "tensorrt" else threads
    yield f"  {found.file} (sha256 {found.file_sha256[:12]}...), {on}"
    cores = f"{machine.usable_cores:g} of {machine.cores} cores usable"
    yield f"  {machine.cpu} ({machine.architecture}), {cores}"
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    yield f"  {machine.system}, Python {machine.python}, {versions}"
    yield from (f"  passed over: {reason}" for reason in found.skipped)
