"""What runs a bundle, and whether it computes what it must, as text."""

from textwrap import wrap

from saq_qat_runtime.kernels import IntegerCount
from saq_qat_runtime.session import SelfTest, SessionInfo

__all__ = ["engine_lines", "self_test_text"]

_WIDTH = 80


def self_test_text(info: SessionInfo, found: SelfTest, count: IntegerCount) -> list[str]:
    """Engine, integer products and golden logits, which agreed."""
    allowed = info.manifest.golden.logits_tolerance[info.target]
    return [
        *engine_lines(info),
        count.label,
        f"golden logits: {found.compared} compared, largest difference "
        f"{found.largest_difference:.3g} ({allowed:.3g} is allowed)",
    ]


def engine_lines(info: SessionInfo) -> list[str]:
    """The engine, its file, and why others were passed over."""
    threads = "" if info.threads is None else f", {info.threads} thread{'s' if info.threads > 1 else ''}"
    lines = [f"{info.backend} {info.backend_version} runs {info.model.name}{threads}"]
    for reason in info.skipped:
        lines += wrap(f"passed over: {reason}", _WIDTH, subsequent_indent="  ")
    return lines
