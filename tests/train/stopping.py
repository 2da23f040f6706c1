"""A training that is asked to stop at a step, as a scheduler asks."""

import os
import signal

from saq_qat.train.progress import OnProgress, Progress

__all__ = ["sigterm_at"]


def sigterm_at(step: int) -> OnProgress:
    """Send this process SIGTERM when a training has made ``step`` steps."""

    def stop(state: Progress) -> None:
        if state.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return stop
