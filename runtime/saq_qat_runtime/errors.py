"""Errors of the runtime, by who can mend them.

    SessionError
    ├── InputError           the caller: an array, image or argument breaks a rule (HTTP 400)
    ├── ModelError           the artifact: a bundle is missing, damaged, unproved or of another version
    ├── BackendUnavailable   the machine: an engine or library that was asked for is missing
    ├── RuntimeFault         the engine: a run failed; the session refuses further calls (HTTP 503)
    └── ClosedError          the program: a session was used after `close()` or across a fork

A message states the rule, what was found, where, and how to mend it.
"""

__all__ = ["BackendUnavailable", "ClosedError", "InputError", "ModelError", "RuntimeFault", "SessionError"]


class SessionError(Exception):
    """Base of every error the runtime raises on purpose."""


class InputError(SessionError):
    """An array, image or argument breaks a rule; nothing was computed and the session stays usable."""


class ModelError(SessionError):
    """A bundle is missing, damaged, unproved or of another version."""


class BackendUnavailable(SessionError):  # noqa: N818  "unavailable" already says that it is an error
    """The engine or library that was asked for cannot run here; nothing else silently takes its place."""


class RuntimeFault(SessionError):  # noqa: N818  a fault is the engine's, and stays until the session is loaded again
    """The engine failed in the middle of a run, or computes other numbers than it must."""


class ClosedError(SessionError):
    """The session was closed, or belongs to the process this one was forked from."""
