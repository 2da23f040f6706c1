"""Lines of progress say how much is done of how much, and how long the rest will take."""

import io

import pytest

from saq_qat_runtime.cli.progress import LINE_SECONDS, counted


def test_a_line_now_and_then_with_total_and_remaining_time_and_one_at_the_end() -> None:
    now, stream = [0.0], io.StringIO()
    with counted("verify", 100, "images", clock=lambda: now[0], stream=stream) as advance:
        for _ in range(10):
            now[0] += LINE_SECONDS / 2
            advance(10)
    assert stream.getvalue().splitlines() == [
        "verify: 20/100 images in 5.0 s, 20 s left",
        "verify: 40/100 images in 10.0 s, 15 s left",
        "verify: 60/100 images in 15.0 s, 10 s left",
        "verify: 80/100 images in 20.0 s, 5 s left",
        "verify: 100/100 images in 25.0 s",
    ]


def test_a_job_that_fails_is_not_said_to_be_done() -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError, match="broken"), counted("verify", 2, "images", stream=stream):
        raise ValueError("broken")
    assert stream.getvalue() == ""
