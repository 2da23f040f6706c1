"""What runs a bundle, and whether it computes what it must, as text."""

from textwrap import wrap

from saq_qat_runtime.bundle.probes import CoverageRecord
from saq_qat_runtime.kernels import IntegerCount
from saq_qat_runtime.session import SelfTest, SessionInfo

__all__ = ["coverage_line", "engine_lines", "self_test_text"]

_WIDTH = 80


def self_test_text(info: SessionInfo, found: SelfTest, count: IntegerCount) -> list[str]:
    """Engine, integer products and golden logits, which agreed."""
    allowed = info.manifest.golden.logits_tolerance[info.target]
    return [
        *engine_lines(info),
        count.label,
        *_codes(info, found),
        f"golden logits: {found.compared} compared, largest difference "
        f"{found.largest_difference:.3g} ({allowed:.3g} is allowed)",
    ]


def _codes(info: SessionInfo, found: SelfTest) -> list[str]:
    """How many codes were compared, and what they cover of the network's numbers."""
    codes, probes = found.codes, info.manifest.probes
    if codes is None:
        return [f"codes: not compared, {info.backend} keeps them to itself; logits alone were"]
    ties = f", {codes.at_ties:,} turned at a tie" if codes.at_ties else ""
    lines = [f"codes: {codes.compared:,} compared in {codes.tensors} tensors, none differs{ties}"]
    return lines if probes is None else [*lines, *wrap(coverage_line(probes.coverage), _WIDTH)]


def coverage_line(coverage: CoverageRecord) -> str:
    """What a self-test covers, in a sentence."""
    without = f"; {coverage.without_effect:,} can show in no code" if coverage.without_effect else ""
    uncounted = f"; {coverage.uncounted:,} numbers are not counted" if coverage.uncounted else ""
    possible = coverage.changes - coverage.without_effect
    return (
        f"coverage: {100 * coverage.share:.2f} % of the smallest changes of weights, biases and scales "
        f"show ({coverage.found:,} of {possible:,}){without}{uncounted}"
    )


def engine_lines(info: SessionInfo) -> list[str]:
    """The engine, its file, and why others were passed over."""
    threads = "" if info.threads is None else f", {info.threads} thread{'s' if info.threads > 1 else ''}"
    lines = [f"{info.backend} {info.backend_version} runs {info.model.name}{threads}"]
    for reason in info.skipped:
        lines += wrap(f"passed over: {reason}", _WIDTH, subsequent_indent="  ")
    return lines
