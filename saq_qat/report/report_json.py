"""The report of a run as JSON: every number of the text, under stable names."""

from dataclasses import asdict
from typing import Any

from saq_qat.report.accuracy import accuracy_rows, flip_interval
from saq_qat.report.collect import Collected
from saq_qat.report.verdict import fix_of, integer_products, judge_run, missing_steps, warnings_of

__all__ = ["report_json"]

SCHEMA_VERSION = 2


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
        "fix": fix_of(known) or None,
        "graph": None if known.graph is None else asdict(known.graph),
        "warnings": warnings_of(known),
        "not_measured": missing_steps(known),
        "checkpoint_sha256": _checkpoint_sha256(known),
        "bundle_sha256": known.bundle_sha256,
        "checkpoint": None if known.checkpoint is None else asdict(known.checkpoint),
        "set_aside": [asdict(each) for each in known.set_aside],
        "recipe": known.recipe.model_dump(mode="json"),
        "environment": known.environment,
        "epochs": [line for line in known.log if line.get("event") in ("epoch", "end")],
        "bundle": None if known.manifest is None else asdict(known.manifest),
        "proof": None if known.proof is None else asdict(known.proof),
        "engines": [asdict(engine) for engine in known.engines],
        "bench": None if known.bench is None else asdict(known.bench),
        "evaluation": None if known.evaluation is None else asdict(known.evaluation),
    }


def _checkpoint_sha256(known: Collected) -> str | None:
    """Of the checkpoint that all figures are about: the bundle's, if there is one."""
    if known.manifest is not None:
        return known.manifest.checkpoint_sha256
    return None if known.checkpoint is None else known.checkpoint.sha256
