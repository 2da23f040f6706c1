"""A path that a caller gave, or a refusal that says what was wanted."""

from os import PathLike
from pathlib import Path

from saq_qat.errors import RecipeError

__all__ = ["path_of"]


def path_of(place: object, wanted: str) -> Path:
    """The path.

    Args:
        wanted: the rule it is of, as a sentence begins: ``verify takes a bundle's folder``.

    Raises:
        RecipeError: it is no path.
    """
    if not isinstance(place, str | PathLike):
        raise RecipeError(f"{wanted}; got {type(place).__name__}.")
    return Path(place)
