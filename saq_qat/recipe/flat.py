"""A recipe as one value for each dotted key, so that two recipes can be compared."""

from typing import Any

__all__ = ["flat"]


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Values without sections and lists, by dotted keys; list items go by index, as in overrides."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, (list, tuple))
        else None
    )
    if items is None:
        return {path: value}
    return {k: v for key, part in items for k, v in flat(part, f"{path}.{key}" if path else str(key)).items()}
