"""Harm done to bytes, to text and to plain data, as a generator of random numbers has it."""

import struct
from collections.abc import Sequence
from copy import deepcopy
from random import Random
from typing import Any

__all__ = ["ODD_NUMBERS", "ODD_VALUES", "damaged_bytes", "damaged_text", "damaged_tree", "json_paths"]

ODD_NUMBERS: tuple[int | float, ...] = (
    0, -1, 1, 2, 3, 7, 255, 256, -128, 65535, 7001, 10**6, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53,
    2**63 - 1, 2**63, -(2**63), 2**64, 10**30, 0.0, -0.0, 0.5, 1e-45, 1e-300, 1e300, -1e300,
    float("nan"), float("inf"), float("-inf"),
)  # fmt: skip  # one value a line is a page
ODD_VALUES: tuple[Any, ...] = (
    *ODD_NUMBERS, None, True, False, "", " ", "x", "0", "nan", "null", "../../etc/passwd", "/dev/zero", "a/b",
    "..", ".", "a\0b", "\ud800", "\u202e", "é" * 200, "x" * 100_000, "%s%n{0}{x}", "manifest.json", [], {},
    [[]], [None], {"": 0}, {"x": {"x": {}}}, ["x"] * 1000, [0] * 10_000,
)  # fmt: skip  # one value a line is a page
_TOKENS = (
    "{", "}", "[", "]", ":", ": ", ",", "-", "- ", "\n", "\r", "\t", "\0", "\ufeff", "\u2028", "#", "'", '"',
    "\\", "&a ", "*a", "!!python/object/apply:os.system ['false']", "!!binary ", "!!int ", "<<: ", "? ", "| ",
    "> ", "%YAML 1.1\n", "---\n", "...\n", "~", "null", "NaN", ".nan", ".inf", "1e999", "-1", "0x", "0o9",
    "1_0", "2001-01-01", "yes", "9" * 5000, "é", "\U0001f600",
)  # fmt: skip  # one value a line is a page
_DEPTH = 3000


def damaged_bytes(random: Random, content: bytes) -> bytes:
    """The content with one to four places changed, cut, doubled, moved or overwritten with odd numbers."""
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 4))):
        _damage_once(random, changed)
    return bytes(changed)


def _damage_once(random: Random, content: bytearray) -> None:
    place = random.randrange(len(content)) if content else 0
    length = random.choice((1, 2, 4, 16, 200))
    match random.randrange(8):
        case 0 if content:
            content[place] ^= 1 << random.randrange(8)
        case 1 if content:
            content[place] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
        case 2:
            del content[place : place + length]
        case 3:
            content[place:place] = content[place : place + length] * random.choice((1, 2, 50))
        case 4:
            content[place:place] = random.randbytes(length)
        case 5:
            number = random.choice((0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFF0))
            packed = struct.pack(random.choice("<>") + "I", number)
            content[place : place + 4] = packed[: random.choice((1, 2, 4))]
        case 6:
            del content[place:]
        case _:
            other = random.randrange(len(content)) if content else 0
            content[place : place + length] = content[other : other + length]


def damaged_text(random: Random, text: str) -> str:
    """The text with tokens of YAML and JSON put in, lines doubled, moved or cut, or nested without end."""
    for _ in range(random.choice((1, 1, 2, 3, 6))):
        place = random.randrange(len(text) + 1)
        match random.randrange(7):
            case 0:
                text = text[:place] + random.choice(_TOKENS) + text[place:]
            case 1:
                text = text[:place] + random.choice(_TOKENS) + text[place + random.randrange(1, 20) :]
            case 2:
                text = text[:place] + text[place + random.randrange(1, 40) :]
            case 3:
                lines = text.splitlines(keepends=True) or [""]
                lines.insert(random.randrange(len(lines) + 1), random.choice(lines))
                text = "".join(lines)
            case 4:
                lines = text.splitlines(keepends=True)
                random.shuffle(lines)
                text = "".join(lines) if random.random() < 0.3 else text
            case 5:
                text = text.replace(*random.choice(((": ", ":"), ("  ", " "), ("\n", "\r\n"), ("e", "E"))))
            case _:
                if random.random() < 0.1:
                    text = text[:place] + random.choice(("[", "{a: ", '{"a":', "- ")) * _DEPTH + text[place:]
    return text


def json_paths(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every key and item below `value`."""
    items: Sequence[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return [path for key, item in items for path in ((*above, key), *json_paths(item, (*above, key)))]


def damaged_tree(random: Random, value: Any, known: Sequence[Any] = ODD_VALUES) -> Any:
    """A copy with one to three keys or items removed, renamed, doubled, moved, or given another value."""
    changed = deepcopy(value)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        paths = json_paths(changed)
        if not paths:
            return random.choice(known)
        path = random.choice(paths)
        parent = _at(changed, path[:-1])
        _change(random, parent, path[-1], known, changed)
    return changed


def _at(value: Any, path: Sequence[Any]) -> Any:
    for key in path:
        value = value[key]
    return value


def _change(random: Random, parent: Any, key: Any, known: Sequence[Any], whole: Any) -> None:
    match random.randrange(7):
        case 0:
            del parent[key]
        case 1 if isinstance(parent, dict):
            parent[random.choice((f"{key}x", "", "x", str(key).upper(), "\ud800", "__class__"))] = parent.pop(
                key
            )
        case 1:
            parent.append(parent[key])
        case 2:
            other = random.choice(json_paths(whole))
            parent[key] = deepcopy(_at(whole, other))
        case 3 if type(parent[key]) in (int, float):
            factor = random.choice((-1, 0, 2, 0.5, 1000, 1e-9))
            parent[key] = type(parent[key])(parent[key] * factor)
        case 4:
            parent[key] = random.choice(([parent[key]], {"x": parent[key]}, str(parent[key])))
        case _:
            parent[key] = deepcopy(random.choice(known))
