"""The report of a run as JSON: every number of the text, under stable names."""

from dataclasses import asdict
from typing import Any

from saq_qat.report.accuracy import accuracy_rows, flip_interval
from saq_qat.report.collect import Collected
from saq_qat.report.verdict import integer_products, judge_run, missing_steps, remedy_of, warnings_of

__all__ = ["report_json"]

SCHEMA_VERSION = 1


def report_json(known: Collected) -> dict[str, Any]:
    """Plain values for ``json.dumps``; null where nothing was measured."""
    count = integer_products(known)
    agreement = None if known.proof is None else known.proof.agreement
    return {
        "schema_version": SCHEMA_VERSION,
        "run": str(known.run),
        "verdict": asdict(judge_run(known)),
        "accuracy": [asdict(row) for row in accuracy_rows(known)],
        "flip_rate_interval": None if agreement is None else flip_interval(agreement.flips, agreement.images),
        "integer_products": None if count is None else asdict(count),
        "remedy": remedy_of(known) or None,
        "graph": None if known.graph is None else asdict(known.graph),
        "warnings": warnings_of(known),
        "not_measured": missing_steps(known),
        "stale": list(known.stale),
        "recipe": known.recipe.model_dump(mode="json"),
        "environment": known.environment,
        "epochs": [line for line in known.log if line.get("event") in ("epoch", "end")],
        "bundle": None if known.manifest is None else asdict(known.manifest),
        "proof": None if known.proof is None else asdict(known.proof),
        "engines": [asdict(engine) for engine in known.engines],
        "bench": None if known.bench is None else asdict(known.bench),
    }
