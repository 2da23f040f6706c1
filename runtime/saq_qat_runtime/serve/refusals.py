"""Why a request gets no answer, as HTTP says it."""

from saq_qat_runtime.errors import ClosedError, InputError, RuntimeFault, SessionError

__all__ = ["DeadlineError", "NotFoundError", "OverloadError", "Refusal", "TooLargeError", "refusal_of"]


class Refusal(SessionError):  # noqa: N818  what the server says to a client, not a failure of the server
    """A request that is refused: HTTP status, message, and after how many seconds to try again (or None)."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class NotFoundError(Refusal):
    """No such model, version or address."""

    def __init__(self, message: str) -> None:
        super().__init__(404, message)


class TooLargeError(Refusal):
    """A body beyond the limit."""

    def __init__(self, message: str) -> None:
        super().__init__(413, message)


class OverloadError(Refusal):
    """Too much work waits already, or the server is not ready; the request was not begun."""

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(503, message, retry_after)


class DeadlineError(Refusal):
    """The answer would come after the time that the request allows."""

    def __init__(self, message: str) -> None:
        super().__init__(504, message)


def refusal_of(error: SessionError) -> Refusal:
    """The runtime's error as a client sees it: its own fault is 400, the engine's 503, anything else 500."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, InputError):
        return Refusal(400, str(error))
    if isinstance(error, RuntimeFault | ClosedError):
        return Refusal(503, str(error), 1)
    return Refusal(500, str(error))
