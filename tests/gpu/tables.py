"""What was measured, as text for the end of the output."""

from collections.abc import Sequence
from typing import Any

from tests.gpu.statistics import paired

__all__ = ["training_table"]


def training_table(results: Sequence[dict[str, Any]], key: str = "val_top1") -> str:
    """Mean and spread of every arm, and its paired difference from plain training over the same seeds."""
    lines = [
        f"{'bits':>4} {'arm':10} {'seeds':>5} {'epochs':>6} {'top-1':>7} {'sd':>5}   against plain, in pairs"
    ]
    for bits in dict.fromkeys(result["run"]["bits"] for result in results):
        of_bits = [result for result in results if result["run"]["bits"] == bits]
        for arm in dict.fromkeys(result["run"]["arm"] for result in of_bits):
            lines.append(_line(bits, arm, of_bits, key))
    return "\n".join(lines)


def _line(bits: int, arm: str, results: Sequence[dict[str, Any]], key: str) -> str:
    by_seed = {
        name: {r["run"]["seed"]: r[key] for r in results if r["run"]["arm"] == name}
        for name in (arm, "plain")
    }
    values = list(by_seed[arm].values())
    mean = sum(values) / len(values)
    spread = (sum((v - mean) ** 2 for v in values) / max(1, len(values) - 1)) ** 0.5
    epochs = next(r["run"]["epochs"] for r in results if r["run"]["arm"] == arm)
    line = f"{bits:>4} {arm:10} {len(values):>5} {epochs:>6} {mean:7.2f} {spread:5.2f}"
    seeds = sorted(by_seed[arm].keys() & by_seed["plain"].keys())
    if arm == "plain" or len(seeds) < 2:
        return line
    found = paired(*([by_seed[name][seed] for seed in seeds] for name in (arm, "plain")))
    return (
        f"{line}   {found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}], t {found.t:.2f}, p {found.p:.3f}"
    )
