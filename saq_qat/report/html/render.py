"""The templates of pages and cards; whatever they are given is escaped for where it stands."""

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

__all__ = ["escape_markdown", "render"]

_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~$&])")


def render(template: str, values: Mapping[str, Any]) -> str:
    """A template of this folder, filled in.

    Names that end with .html are escaped as HTML; in others a template escapes each string itself.
    """
    return _environment(html=template.endswith(".html")).get_template(template).render(values)


def escape_markdown(value: object) -> str:
    """A string on one line, without meaning to Markdown or HTML."""
    return _MARKDOWN.sub(r"\\\1", " ".join(str(value).split()))


def _without_bidi(value: object) -> object:
    """A string without the characters that turn the order of those around them, as in text."""
    # What is marked as safe was put together from strings that came through here.
    return _BIDI.sub("?", value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _environment(*, html: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=html,
        finalize=_without_bidi,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters["md"] = escape_markdown
    return environment
