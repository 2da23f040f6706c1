"""A path that a caller gave, or a refusal that says what was wanted."""

from pathlib import Path

from saq_qat.errors import RecipeError
from saq_qat_runtime.checks import check_path
from saq_qat_runtime.errors import InputError

__all__ = ["path_of"]


def path_of(place: object, wanted: str) -> Path:
    """The path.

    Args:
        wanted: the rule it is of, as a sentence begins: ``verify takes a bundle's folder``.

    Raises:
        RecipeError: it is no path.
    """
    try:
        return check_path("it", place)
    except InputError as error:
        raise RecipeError(f"{wanted}: {error}") from error
