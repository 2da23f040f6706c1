"""Part (a): ResNet-20 on CIFAR-10 from public weights, plain quantization-aware training against SAQ."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from saq_qat.models.build import build_model
from saq_qat.recipe.schema import Model
from tests.gpu.fleet import Fleet, Outcome, Pictures, Run, Starts
from tests.gpu.images import held_out
from tests.gpu.options import Options
from tests.gpu.results import read_part, write_part
from tests.gpu.search import Found, search
from tests.gpu.setting import Setting
from tests.gpu.tables import training_table

__all__ = ["run_training_part"]

_SEARCH_SEEDS = 2
_RUNS_A_FILE = 12
_FEWEST_EPOCHS = 4
_FEWEST_SEEDS = 4
_JUDGING = 0.4
"""Seconds to judge one run."""

_SAM_RHO = 0.05


def run_training_part(options: Options) -> None:
    """Search and final runs, as the options ask; writes search.json, training.json and final states."""
    setting = Setting(options)
    try:
        seeds = tuple(range(options.seeds))
        searched, rest = held_out(setting.train, setting.sizes.held_out)
        searching, training = "search" in options.modes, "final" in options.modes
        of_search = setting.begin_starts(searched, seeds[:_SEARCH_SEEDS]) if searching else None
        of_final = setting.begin_starts(setting.train, seeds) if training else None
        fleet = setting.fleet()
        if of_search is not None:
            found = search(
                setting, fleet, setting.pictures(searched, rest), of_search.all(), seeds[:_SEARCH_SEEDS]
            )
        else:
            found = _given(options)
        if of_final is not None:
            pictures = setting.pictures(setting.train, setting.val)
            _final(setting, fleet, pictures, of_final.all(), found, seeds)
    finally:
        setting.close()


def _given(options: Options) -> Found:
    """The settings of search.json, where there is one; what the options say goes before it."""
    before = read_part(options.output, "search")
    names = ("rates", "saq_rates", "rhos")
    known = {name: {int(b): v for b, v in before["found"][name].items()} if before else {} for name in names}
    found = Found(
        known["rates"] | options.rates, known["saq_rates"] | options.rates, known["rhos"] | options.rhos
    )
    missing = [
        b for b in options.bits if b not in found.rates or b not in found.saq_rates or b not in found.rhos
    ]
    if missing:
        raise ValueError(
            f"Final runs need a learning rate and a rho for W{missing[0]}: run --mode search before, with "
            f"the same --output, or give --learning-rate W{missing[0]}=.01 --rho W{missing[0]}=.8"
        )
    return found


def _final(
    setting: Setting, fleet: Fleet, pictures: Pictures, starts: Starts, found: Found, seeds: Sequence[int]
) -> None:
    """The arms at the best settings; results and states are written wave by wave."""
    baseline = _full_precision(setting, pictures)
    setting.say(f"full precision: top-1 {baseline:.2f}")
    waves, cost = _affordable(setting, fleet, pictures, starts, found, seeds)
    outcomes: list[Outcome] = []
    content: dict[str, object] = {}
    for name, runs in waves.items():
        expected = cost[name] * pictures.steps * runs[0].epochs + _JUDGING * len(runs)
        if outcomes and expected > setting.left and not setting.sizes.epochs:
            setting.note(
                f"{name} is left out: it would take {expected:.0f} s, and {setting.left:.0f} s are left"
            )
            continue
        of_wave = fleet.train(runs, pictures, starts)
        _write_states(setting.options.output, name, of_wave)
        outcomes += of_wave
        setting.say(f"{name}: {len(of_wave)} runs of {runs[0].epochs} epochs are done")
        content = {
            **setting.facts(fleet, pictures),
            "full_precision_top1": baseline,
            "found": asdict(found),
            "cost": cost,
            "runs": [outcome.measured() for outcome in outcomes],
        }
        write_part(setting.options.output, "training", content, complete=False)
    write_part(setting.options.output, "training", content | {"notes": setting.notes}, complete=True)
    print(training_table([outcome.measured() for outcome in outcomes]))


def _affordable(
    setting: Setting, fleet: Fleet, pictures: Pictures, starts: Starts, found: Found, seeds: Sequence[int]
) -> tuple[dict[str, list[Run]], dict[str, float]]:
    """Waves whose epochs fit the time, and the cost of their steps; half the seeds where they are few."""
    waves = _waves(setting.options, found, seeds, 1)
    cost = setting.cost(fleet, pictures, starts, waves)
    if setting.sizes.epochs:
        return _waves(setting.options, found, seeds, setting.sizes.epochs), cost
    whole = sum(cost[name] * runs[0].epochs for name, runs in waves.items()) * pictures.steps
    budget = setting.left - _JUDGING * sum(map(len, waves.values()))
    epochs = int(budget / whole)
    setting.say(f"{len(seeds)} seeds: {epochs} epochs; one of all runs takes {whole:.1f} s")
    if epochs < _FEWEST_EPOCHS and len(seeds) >= 2 * _FEWEST_SEEDS:
        return _affordable(setting, fleet, pictures, starts, found, seeds[: len(seeds) // 2])
    return _waves(setting.options, found, seeds, max(1, epochs)), cost


def _waves(options: Options, found: Found, seeds: Sequence[int], epochs: int) -> dict[str, list[Run]]:
    """Runs that are trained side by side, of equally many epochs; the comparison that matters comes first."""
    pairs = [(bits, seed) for bits in options.bits for seed in seeds]
    rate, saq_rate, rho = found.rates, found.saq_rates, found.rhos
    of_arm = {
        "plain": [Run("plain", "plain", b, s, rate[b], epochs) for b, s in pairs],
        "saq": [Run("saq", "saq", b, s, saq_rate[b], epochs, rho[b]) for b, s in pairs],
        "plain2x": [Run("plain2x", "plain", b, s, rate[b], 2 * epochs) for b, s in pairs],
        "saq_sum": [Run("saq_sum", "saq", b, s, saq_rate[b] / 2, epochs, rho[b], 1.0) for b, s in pairs],
        "sam": [Run("sam", "sam", b, s, rate[b], epochs, _SAM_RHO) for b, s in pairs],
    }
    waves = {"pair": of_arm["plain"] + of_arm["saq"]}
    return waves | {arm: of_arm[arm] for arm in options.arms if arm not in ("plain", "saq")}


@torch.no_grad()
def _full_precision(setting: Setting, pictures: Pictures) -> float:
    """Top-1 in percent of the weights that all runs start from."""
    weights = setting.options.weights
    model = Model(name="resnet20_option_a", pretrained=None if weights is None else str(weights))
    network = build_model(model, 10).to(setting.device).eval()
    right = sum(int((network(images).argmax(1) == labels).sum()) for images, labels in pictures.val)
    return 100.0 * right / sum(len(labels) for _, labels in pictures.val)


def _write_states(folder: Path, wave: str, outcomes: Sequence[Outcome]) -> None:
    """Final tensors of a few runs a file, by ``<arm>-w<bits>-s<seed>/<name>``."""
    folder.mkdir(parents=True, exist_ok=True)
    for first in range(0, len(outcomes), _RUNS_A_FILE):
        named = {
            f"{outcome.run.name}/{name}": tensor
            for outcome in outcomes[first : first + _RUNS_A_FILE]
            for name, tensor in outcome.state.items()
        }
        save_file(named, folder / f"states-{wave}-{first // _RUNS_A_FILE}.safetensors")
