"""A Markdown card for model hubs: what the bundle is, how accurate and how fast, and what that means."""

from saq_qat.report.accuracy import accuracy_rows
from saq_qat.report.collect import Collected
from saq_qat.report.headline import deployed_row, facts
from saq_qat.report.html.render import render
from saq_qat.report.verdict import judge_run, warnings_of
from saq_qat.version import __version__

__all__ = ["model_card"]

_LABELS_SHOWN = 20


def model_card(known: Collected) -> str:
    """The card of a run's bundle, as UTF-8 text; strings of the run mean nothing to Markdown or HTML in it.

    The block at its head follows the model card metadata of the Hugging Face hub; it names no licence, which
    the owner of images and weights has to choose.
    """
    labels = () if known.manifest is None else known.manifest.labels
    top1 = deployed_row(known).top1
    return render(
        "model_card.md",
        {
            "name": known.recipe.name,
            "model": known.recipe.model.name,
            "dataset": known.recipe.data.kind,
            "verdict": judge_run(known),
            "facts": facts(known),
            "accuracy": [row for row in accuracy_rows(known) if row.top1 is not None],
            "top1": top1,
            "manifest": known.manifest,
            "quant": known.recipe.quant,
            "labels": labels[:_LABELS_SHOWN],
            "more_labels": max(0, len(labels) - _LABELS_SHOWN),
            "warnings": warnings_of(known),
            "version": __version__,
        },
    )
