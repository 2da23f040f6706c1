"""Hyper-parameters, on images held out of the training set: plain training's rate, then SAQ's rho."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from tests.gpu.fleet import Fleet, Outcome, Pictures, Run, Starts
from tests.gpu.results import write_part
from tests.gpu.setting import Setting

__all__ = ["Found", "search"]

_SHARE = 0.3
"""Of the time, where final runs follow."""


@dataclass(frozen=True)
class Found:
    """The best settings by bit-width: rate of plain training; rate and rho of SAQ."""

    rates: Mapping[int, float]
    saq_rates: Mapping[int, float]
    rhos: Mapping[int, float]


def search(setting: Setting, fleet: Fleet, pictures: Pictures, starts: Starts, seeds: Sequence[int]) -> Found:
    """The best rate of plain training, then rho there, then SAQ at the rate's neighbours with the best rho.

    Writes search.json.
    """
    bits, sizes = setting.options.bits, setting.sizes
    plain = [Run("plain", "plain", b, s, rate, 1) for b in bits for rate in sizes.rates for s in seeds]
    saq = [Run("saq", "saq", b, s, 0.0, 1, rho) for b in bits for rho in sizes.rhos for s in seeds]
    cost = setting.cost(fleet, pictures, starts, {"plain": plain, "saq": saq})
    epochs = _epochs(setting, pictures, cost)

    of_plain = fleet.train([replace(run, epochs=epochs) for run in plain], pictures, starts)
    rates = {b: _best(of_plain, b, "rate") for b in bits}
    setting.say(f"plain training is best at {rates}")
    at_rate = [replace(run, epochs=epochs, rate=rates[run.bits]) for run in saq]
    of_saq = fleet.train(at_rate, pictures, starts)
    rhos = {b: _best(of_saq, b, "rho") for b in bits}
    setting.say(f"SAQ is best with rho {rhos}")
    beside = [
        Run("saq", "saq", b, s, rate, epochs, rhos[b])
        for b in bits
        for rate in _neighbours(sizes.rates, rates[b])
        for s in seeds
    ]
    of_saq += fleet.train(beside, pictures, starts)
    at_rho = [outcome for outcome in of_saq if outcome.run.rho == rhos[outcome.run.bits]]
    found = Found(rates, {b: _best(at_rho, b, "rate") for b in bits}, rhos)
    runs = [outcome.measured() for outcome in [*of_plain, *of_saq]]
    content = {**setting.facts(fleet, pictures), "cost": cost, "found": asdict(found), "runs": runs}
    write_part(setting.options.output, "search", content, complete=True)
    setting.say(f"found {found}")
    return found


def _epochs(setting: Setting, pictures: Pictures, cost: Mapping[str, float]) -> int:
    """As many as fit the search's share of the time, one at least."""
    if setting.sizes.epochs:
        return setting.sizes.epochs
    neighbours = 2 / len(setting.sizes.rhos)
    whole = (cost["plain"] + cost["saq"] * (1 + neighbours)) * pictures.steps
    budget = setting.left * (_SHARE if "final" in setting.options.modes else 1.0)
    epochs = max(1, int(budget / whole))
    setting.say(f"search: {epochs} epochs each; one of all its runs takes {whole:.1f} s")
    return epochs


def _neighbours(rates: Sequence[float], best: float) -> list[float]:
    place = rates.index(best)
    return [rates[other] for other in (place - 1, place + 1) if 0 <= other < len(rates)]


def _best(outcomes: Sequence[Outcome], bits: int, key: str) -> float:
    """The value of ``key`` with the best mean top-1 over seeds; a run that is not finite counts 0."""
    by_value: dict[float, list[float]] = {}
    for outcome in outcomes:
        if outcome.run.bits == bits:
            top1 = outcome.val_top1 if np.isfinite(outcome.val_loss) else 0.0
            by_value.setdefault(getattr(outcome.run, key), []).append(top1)
    return max(by_value, key=lambda value: float(np.mean(by_value[value])))
