"""Tables of the documents that lie beside the paper's recipes, and what the paper says, typed from it."""

import re
import shlex
from pathlib import Path

from tests.docs.estimates import Network

__all__ = [
    "CONFIGS",
    "IMAGENET",
    "TRAINING_IMAGES",
    "TRANSFER",
    "code_blocks",
    "commands",
    "networks",
    "rows",
    "stand_in",
]

CONFIGS = Path(__file__).parents[2] / "configs"
IMAGENET = CONFIGS / "imagenet" / "README.md"
TRANSFER = CONFIGS / "transfer" / "README.md"
TRAINING_IMAGES = 1_281_167
_LINK = re.compile(r"\[([^\]]+)\]\([^)]+\)")


def rows(document: Path, first: str) -> list[dict[str, str]]:
    """The table whose first column is headed ``first``: a row as its cells by column, links as their text."""
    lines = document.read_text(encoding="utf-8").splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(f"| {first} |"))
    table = lines[start : start + next(i for i, line in enumerate([*lines[start:], ""]) if not line)]
    header, _, *body = ([_LINK.sub(r"\1", cell.strip()) for cell in line.split("|")[1:-1]] for line in table)
    return [dict(zip(header, cells, strict=True)) for cells in body]


def networks() -> dict[str, Network]:
    """Sizes of networks, as the document says them."""
    return {
        row["network, 224 pixels"]: Network(
            float(row["multiply-adds, 1e9"]) * 1e9,
            float(row["elements read, 1e6"]) * 1e6,
            int(row["layers and products"]),
            float(row["parameters, 1e6"]) * 1e6,
        )
        for row in rows(IMAGENET, "network, 224 pixels")
    }


def code_blocks(document: Path) -> list[str]:
    """Its blocks of Python."""
    return re.findall(r"```python\n(.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)


def commands(document: Path) -> list[list[str]]:
    """Words behind `saq-qat` of the commands that stand in lines of their own, continued lines joined."""
    text = document.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = (line for line in text.splitlines() if line.startswith("    "))
    return [shlex.split(line.partition("saq-qat ")[2]) for line in lines if "saq-qat " in line]


def stand_in() -> list[str]:
    """What the document says to set so that a recipe is checked on ten images: the line of `check`."""
    (check,) = (words for words in commands(IMAGENET) if words[0] == "check")
    return [word for word in check[2:] if word not in ("data.root=PATH", "model.pretrained=WEIGHTS")]
