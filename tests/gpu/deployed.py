"""Top-1 of the deployed integers of every final state of the training part, beside what it was trained to.

usage: python -m tests.gpu.deployed DIR --data ZIP [--data ZIP ...]

DIR is that of ``--output``: training.json and its states. Each network is rebuilt and lowered by the product
on this machine's CPU; deployed.json, with a table of paired differences, is written beside them.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from saq_qat.quant.deploy.view import deploy_view
from saq_qat.recipe.schema import Deploy
from saq_qat_export.reference.deploy_view import run_reference
from tests.gpu.fleet import Pictures
from tests.gpu.images import random_splits, read_splits
from tests.gpu.networks import quantized
from tests.gpu.results import read_part, write_part
from tests.gpu.tables import training_table

__all__ = ["Deployed", "deployed", "main", "states"]


@dataclass(frozen=True)
class Deployed:
    """One network on the judged images.

    Attributes:
        top1: of the deploy view; trained_top1: of the fake-quant network; both in percent.
        flips: images that the two answer differently.
        integer_images: that the integer reference in NumPy answered too.
        integer_flips: of those, otherwise than the view.
    """

    top1: float
    trained_top1: float
    flips: int
    images: int
    integer_images: int
    integer_flips: int


def states(folder: Path) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Name of a run, and its parameters and buffers, one after the other."""
    for file in sorted(folder.glob("states-*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            keys = list(opened.keys())
            for run in dict.fromkeys(key.split("/")[0] for key in keys):
                own = [key for key in keys if key.startswith(f"{run}/")]
                yield run, {key.removeprefix(f"{run}/"): opened.get_tensor(key) for key in own}


@torch.no_grad()
def deployed(
    bits: int, state: dict[str, Tensor], batches: Sequence[tuple[Tensor, Tensor]], integer_images: int
) -> Deployed:
    """Judge the network of a final state as it was trained, and as it is deployed."""
    network = quantized(bits, None, initialise=False)
    network.load_state_dict(state)
    view = deploy_view(network.eval(), Deploy())
    labels = torch.cat([own for _, own in batches])
    trained, shipped = (_answers(module, batches) for module in (network, view))
    some = batches[0][0][:integer_images]
    by_integers = torch.from_numpy(run_reference(view, some.numpy()).logits).argmax(1)
    return Deployed(
        top1=100.0 * float((shipped == labels).double().mean()),
        trained_top1=100.0 * float((trained == labels).double().mean()),
        flips=int((trained != shipped).sum()),
        images=len(labels),
        integer_images=len(some),
        integer_flips=int((by_integers != shipped[: len(some)]).sum()),
    )


def _answers(module: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    return torch.cat([module(images).argmax(1) for images, _ in batches])


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge every state, write deployed.json and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.deployed", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, action="append", default=[])
    parser.add_argument("--work", type=Path, default=Path("runs/gpu/work"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--integer-images", type=int, default=64)
    given = parser.parse_args(arguments)
    before = read_part(given.folder, "training")
    if before is None:
        parser.error(f"{given.folder} has no training.json")
    val = (read_splits(given.data, given.work, given.workers) if given.data else random_splits(16, 16))[1]
    batches = Pictures(val, val, 1, torch.device("cpu"), clean=1).val
    runs = {_name(measured["run"]): measured for measured in before["runs"]}
    for name, state in states(given.folder):
        found = deployed(runs[name]["run"]["bits"], state, batches, given.integer_images)
        runs[name] |= {"deployed": vars(found), "deployed_top1": found.top1}
        print(f"{name}: {json.dumps(vars(found))}", flush=True)
        _write(given.folder, runs, complete=False)
    _write(given.folder, runs, complete=True)
    judged = [measured for measured in runs.values() if "deployed_top1" in measured]
    print(training_table(judged, "deployed_top1"))
    return 0


def _name(run: dict[str, Any]) -> str:
    return f"{run['arm']}-w{run['bits']}-s{run['seed']}"


def _write(folder: Path, runs: dict[str, dict[str, Any]], *, complete: bool) -> None:
    write_part(folder, "deployed", {"runs": list(runs.values())}, complete=complete)


if __name__ == "__main__":
    raise SystemExit(main())
