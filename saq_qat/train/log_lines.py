"""What a line of log.jsonl may hold: enough for whoever reads it to rely on."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

__all__ = ["whole_lines", "why_no_line"]

_TEXTS = ("event", "stage", "form", "kind", "reason", "source", "sha256")
_COUNTS = ("step", "epoch")
_NUMBERS = (
    *("loss", "perturbed_loss", "lr", "gradient_norm", "epsilon_norm", "cosine", "step_cosine"),
    *("images_per_second", "top1", "top5", "val_loss", "deploy_top1", "best", "waited", "step_seconds"),
    "seconds",
)
_BY_LAYER = ("clip_levels", "clipped_weights")
_NEEDED = {"epoch": ("stage", "epoch", "loss"), "teacher": ("source", "top1", "top5")}
"""Of an event, beside what every line has; other events and further keys may be of another version."""


def whole_lines(texts: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The lines among ``texts``; others, such as the end that a kill cut short, are passed over."""
    for text in texts:
        try:
            line = _value(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and _fault_of(line) is None:
            yield line


def why_no_line(text: bytes) -> str:
    """What is wrong with a text that is no line, in words."""
    try:
        line = _value(text)
    except (ValueError, RecursionError) as error:
        return str(error)
    return (_fault_of(line) if isinstance(line, dict) else None) or "it is no JSON object"


def _value(text: bytes) -> object:
    """Older logs hold NaN and Infinity, which are read as None."""
    return json.loads(text.decode("utf-8"), parse_constant=lambda _: None)


def _fault_of(line: dict[str, object]) -> str | None:
    for key in ("event", "step", *_NEEDED.get(str(line.get("event")), ())):
        if key not in line:
            return f"it has no {key}"
    for keys, holds, what in _RULES:
        wrong = next((key for key in keys if key in line and not holds(line[key])), None)
        if wrong is not None:
            return f"its {wrong} is no {what}"
    return None


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: object) -> bool:
    """None stands for one that was not finite."""
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _is_by_layer(value: object) -> bool:
    return isinstance(value, Mapping) and all(map(_is_number, value.values()))


_RULES: tuple[tuple[tuple[str, ...], Callable[[object], bool], str], ...] = (
    (_TEXTS, _is_text, "text"),
    (_COUNTS, _is_count, "whole number from 0 on"),
    (_NUMBERS, _is_number, "number"),
    (_BY_LAYER, _is_by_layer, "table of layers and numbers"),
)
