"""The numbers behind a page, as the JSON that is embedded in it."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from saq_qat.report.collect import Collected
from saq_qat.report.details import Details
from saq_qat.report.html.latency import Distribution
from saq_qat.report.html.layers import mismatches
from saq_qat.report.per_class import confusion_matrix
from saq_qat.report.report_json import report_json

__all__ = ["page_data", "short_report"]

_LARGEST_MATRIX = 100  # classes; beyond, predictions.csv has the answers


def page_data(
    known: Collected, details: Details, latencies: Sequence[Distribution], *, by_layer: bool = True
) -> dict[str, Any]:
    """Plain values: the report, and what each picture shows.

    Args:
        by_layer: with what is known of single layers and tensors.
    """
    report = short_report(known)
    if not by_layer and report["bundle"] is not None:
        del report["bundle"]["layers"], report["bundle"]["tensors"]
    return {
        "report": report,
        "grids": asdict(details.grids) if details.grids is not None and by_layer else None,
        "mismatches": {} if known.proof is None else dict(mismatches(known.proof.comparisons)),
        "latencies": [
            {
                "batch": each.batch,
                "edges_ms": each.edges_ms,
                "calls": {strip.name: strip.counts for strip in each.strips},
            }
            for each in latencies
        ],
        "confusion": _confusion(details),
        "classes": details.classes,
    }


def short_report(known: Collected) -> dict[str, Any]:
    """report.json without what grows with epochs times layers: clip levels by epoch, codes by tensor."""
    values = report_json(known)
    dropped = ("clip_levels", "clipped_weights")
    values["epochs"] = [{k: v for k, v in epoch.items() if k not in dropped} for epoch in values["epochs"]]
    if values["proof"] is not None:
        for comparison in values["proof"]["comparisons"]:
            del comparison["tensors"]
    return values


def _confusion(details: Details) -> dict[str, Any] | None:
    found, classes = details.predictions, len(details.classes)
    if found is None or classes > _LARGEST_MATRIX:
        return None
    answers = {"network": found.network, "deployed": found.deployed}
    return {
        form: None if own is None else confusion_matrix(found.labels, own, classes).tolist()
        for form, own in answers.items()
    }
