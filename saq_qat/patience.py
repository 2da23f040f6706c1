"""How long a process waits for another before it says that the other hangs."""

import os

from saq_qat.errors import SetupError

__all__ = ["TIMEOUT_VARIABLE", "patience_seconds"]

TIMEOUT_VARIABLE = "SAQ_QAT_TIMEOUT"
"""In the environment: seconds."""
_TIMEOUT_SECONDS = 1800
_LONGEST_SECONDS = 7 * 24 * 3600


def patience_seconds() -> int:
    """Seconds to wait for another process of the training, or for a loader's next batch.

    Raises:
        SetupError: the environment says something that is no time.
    """
    text = os.environ.get(TIMEOUT_VARIABLE, str(_TIMEOUT_SECONDS))
    plain = text.isascii() and text.isdigit() and len(text) <= len(str(_LONGEST_SECONDS))
    seconds = int(text) if plain else 0
    if not 0 < seconds <= _LONGEST_SECONDS:
        raise SetupError(
            f"{TIMEOUT_VARIABLE} must be a whole number of seconds from 1 to {_LONGEST_SECONDS}; got "
            f"{text!r}."
        )
    return seconds
