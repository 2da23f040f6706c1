"""The smallest network of every family: ``python -m tests.families.choose > tests/families/networks.json``.

A family is a source file of timm with models in it, or one of torchvision. Counted are the parameters with
ten classes; networks with other than three input channels, or with more than sixty million, are left out.
"""

import json
import pkgutil
import sys
from collections.abc import Iterator
from typing import Any

import timm
import torch
import torchvision
from timm.models import get_pretrained_cfg, list_models, model_entrypoint

LARGEST, CLASSES, SIDE = 60e6, 10, 224
OWN_ARGUMENTS: dict[str, dict[str, bool]] = {
    name: {"aux_logits": False, "init_weights": False} for name in ("googlenet", "inception_v3")
}
Candidate = tuple[str, str, int, dict[str, bool]]
"""Family, name, image size and arguments."""
OWN_SIDES = {"inception_v3": 299}


def parameters_of(build: Any, **arguments: Any) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(num_classes=CLASSES, **arguments).parameters())


def of_timm() -> Iterator[Candidate]:
    for name in list_models():
        settings = get_pretrained_cfg(name)
        channels, side, _ = settings.input_size if settings else (3, SIDE, SIDE)
        if channels == 3:
            yield model_entrypoint(name).__module__.rpartition(".")[2], name, side, {}


def of_torchvision() -> Iterator[Candidate]:
    known = torchvision.models.list_models(module=torchvision.models)
    for module in pkgutil.iter_modules(torchvision.models.__path__):
        home = f"torchvision.models.{module.name}"
        for name in known:
            if torchvision.models.get_model_builder(name).__module__ == home:
                yield module.name, name, OWN_SIDES.get(name, SIDE), OWN_ARGUMENTS.get(name, {})


def smallest(library: str, candidates: Iterator[Candidate]) -> list[dict[str, Any]]:
    families: dict[str, list[tuple[int, str, int, dict[str, bool]]]] = {}
    for family, name, side, arguments in candidates:
        found = families.setdefault(family, [])
        home = timm.create_model if library == "timm" else torchvision.models.get_model
        count = parameters_of(lambda n=name, build=home, **given: build(n, **given), **arguments)
        if count < LARGEST:
            found.append((count, name, side, arguments))
    return [_row(library, family, found) for family, found in sorted(families.items())]


def _row(library: str, family: str, found: list[tuple[int, str, int, dict[str, bool]]]) -> dict[str, Any]:
    count, name, side, arguments = min(found, key=lambda row: row[0]) if found else (None, None, None, {})
    millions = None if count is None else round(count / 1e6, 2)
    return {
        "library": library,
        "family": family,
        "network": name,
        "millions": millions,
        "image": side,
        "arguments": arguments,
    }


if __name__ == "__main__":
    rows = [*smallest("timm", of_timm()), *smallest("torchvision", of_torchvision())]
    sys.stdout.write("[\n" + ",\n".join(" " + json.dumps(row) for row in rows) + "\n]\n")
