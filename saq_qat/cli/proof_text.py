"""How the proof looks on a terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from saq_qat.cli.console import table
from saq_qat.report.blocks import block_table
from saq_qat_runtime.report.narrow import fitted

if TYPE_CHECKING:
    from saq_qat_export.proof.prove import Proof

__all__ = ["print_comparisons", "print_flips", "print_tensors"]

_NAMES = ("reference", "float64", "float32")
"""The integer reference, and the deploy view in both precisions."""
_FLIPS_SHOWN = 10
_HARD = (
    "A bundle needs every hard comparison, deploy.thresholds among them; a soft one that fails is a warning."
)
_COUNTED_IN_ENGINES = (
    "What TensorRT runs as int8 is counted in its engine's own list of layers: saq-qat build."
)


def print_comparisons(proof: "Proof") -> None:
    """Every comparison with what it compared, and the verdict."""
    rows = [
        (
            comparison.name,
            "pass" if comparison.passed else "FAIL",
            "hard" if comparison.hard else "soft",
            f"{comparison.compared:,}",
            f"{comparison.mismatches:,}",
            comparison.detail,
        )
        for comparison in proof.comparisons
    ]
    table(("comparison", "outcome", "kind", "compared", "differ", "detail"), rows)
    counted = _COUNTED_IN_ENGINES if proof.kernels is None else proof.kernels.label
    typer.echo("\n" + "\n".join(fitted([_HARD, counted])))


def print_tensors(proof: "Proof") -> None:
    """Per tensor: differing codes (and ties) of reference, float64 and float32 against the engine."""
    columns = [{t.name: t for t in comparison.tensors} for comparison in proof.comparisons[: len(_NAMES)]]
    rows = []
    for name, first in columns[0].items():
        cells = [_cell(column[name].mismatches, column[name].ties) for column in columns]
        rows.append((name.removesuffix(".codes"), first.producer, f"{first.compared:,}", *cells))
    typer.echo("Codes of reference and deploy view that differ from the engine's (+ ties)")
    header = ("tensor", "computed as", "codes", *_NAMES)
    for line in block_table(header, rows, left=(0, 1)):
        typer.echo(f"  {line}")
    diverging = next((row[0] for row in rows if any(cell.split(" ")[0] != "0" for cell in row[3:5])), None)
    typer.echo(f"\nfirst divergence: {diverging or 'none'}")


def print_flips(proof: "Proof", labels: Sequence[str]) -> None:
    """Images that deployment classifies otherwise than the fake-quant network, with their classes' names."""
    agreement = proof.agreement
    if not agreement.flips:
        return
    shown = agreement.listed[:_FLIPS_SHOWN]
    rows = [(str(f.index), *(labels[i] for i in (f.label, f.fake_quant, f.deployed))) for f in shown]
    first = "; the first:" if agreement.flips > len(shown) else ":"
    title = f"\n{agreement.flips} of {agreement.images} answers differ from the fake-quant network's{first}"
    table(("image", "label", "fake-quant", "deployed"), rows, title=title)


def _cell(mismatches: int, ties: int) -> str:
    return f"{mismatches}" + (f" +{ties}" if ties else "")
