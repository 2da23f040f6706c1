"""Errors a user can cause, each with the exit code of the command that meets it.

    SaqError                 1   a step failed
    ├── RecipeError          2   the recipe or the command line is wrong
    │   └── LegalityError    2   the recipe is well formed, but no target can run what it asks for
    ├── DataError            3   images, labels or folders are not what the recipe says
    ├── ArtifactError        3   a checkpoint or bundle is missing, broken or of another version
    ├── SetupError           4   a package, driver or device is missing
    ├── DivergedError        5   the loss stopped being a finite number
    └── GateError            1   the exported integers are not the trained ones

The runtime, which knows nothing of training, has errors of its own with exit codes of the same meaning
(``saq_qat_runtime.errors``). A message states the rule, what was found, where, and how to mend it.
"""

__all__ = [
    "ArtifactError",
    "DataError",
    "DivergedError",
    "GateError",
    "LegalityError",
    "RecipeError",
    "SaqError",
    "SetupError",
]


class SaqError(Exception):
    """Base of every error that is reported without a traceback."""

    exit_code = 1


class RecipeError(SaqError):
    """The recipe or the command line breaks a rule; nothing was started."""

    exit_code = 2


class LegalityError(RecipeError):
    """A well-formed recipe that no target can run as it stands."""


class DataError(SaqError):
    """Images, labels or folders are not what the recipe says."""

    exit_code = 3


class ArtifactError(SaqError):
    """A checkpoint or bundle is missing, damaged or of another version."""

    exit_code = 3


class SetupError(SaqError):
    """A package, driver or device that the step needs is missing."""

    exit_code = 4


class DivergedError(SaqError):
    """Training produced a loss or gradient that is not finite."""

    exit_code = 5


class GateError(SaqError):
    """The proof failed: deployed integers differ from the trained ones."""
