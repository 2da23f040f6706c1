"""The rules of TensorRT over our own graphs."""

from dataclasses import replace

import onnx

from saq_qat.quant.plan.plan import Finding
from saq_qat.recipe.schema import TensorRt
from saq_qat_export.graph.onnx_graph import OnnxGraph
from saq_qat_export.lint import LintSettings, batch_profiles, lint

__all__ = ["lint_graph"]

_FLOAT_LAYER = "TRT009"
"""A layer in float: an error in a file that nobody planned, and a warning where the plan says it."""


def lint_graph(graph: OnnxGraph, settings: TensorRt) -> tuple[Finding, ...]:
    """Hold a graph for TensorRT against the rules, with the batch sizes its engine will get."""
    model = onnx.load_from_string(graph.content)
    batch = settings.batch
    profiles = batch_profiles(model, batch.minimum, batch.optimum, batch.maximum)
    found = lint(model, LintSettings(profiles=profiles, narrow_weights=True))
    return tuple(replace(one, level="warning") if one.rule == _FLOAT_LAYER else one for one in found)
