"""Starter recipes for `saq-qat init`: commented YAML files beside this module."""

from importlib.resources import files

from saq_qat.errors import RecipeError

__all__ = ["template_summary", "template_text", "templates"]

_FOLDER = files("saq_qat.recipe.templates")
_SUFFIX = ".yaml"


def templates() -> list[str]:
    """Names of the starter recipes, sorted."""
    return sorted(f.name.removesuffix(_SUFFIX) for f in _FOLDER.iterdir() if f.name.endswith(_SUFFIX))


def template_text(name: str) -> str:
    """The starter recipe as YAML with its comments.

    Raises:
        RecipeError: If there is none of that name.
    """
    if name not in templates():
        raise RecipeError(f"there is no template {name!r}; choose from {', '.join(templates())}")
    return (_FOLDER / f"{name}{_SUFFIX}").read_text(encoding="utf-8")


def template_summary(name: str) -> str:
    """What the starter recipe is for: its first comment after the line for editors."""
    return template_text(name).splitlines()[1].removeprefix("# ")
