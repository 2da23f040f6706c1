"""Hold an ONNX model against every rule of TensorRT."""

from pathlib import Path

import onnx
import onnx_ir as ir

from saq_qat.quant.plan.plan import Finding
from saq_qat_export.lint.operators import QUANTIZATION_DOMAINS
from saq_qat_export.lint.reading import prepare, read_model
from saq_qat_export.lint.rules import RULES, Rule
from saq_qat_export.lint.settings import LintSettings
from saq_qat_export.lint.view import GraphView, Violation, graph_view

__all__ = ["has_quantization", "lint", "lint_file", "lint_model"]


_NO_SETTINGS = LintSettings()


def lint(model: onnx.ModelProto, settings: LintSettings = _NO_SETTINGS) -> tuple[Finding, ...]:
    """Findings in graph order, those of one node by rule; what is said of the whole model comes first.

    Weights that lie in other files count as unknown numbers: use `lint_file` where they are at hand.

    Raises:
        ArtifactError: the model does not hold together.
    """
    return lint_model(prepare(model, "the model"), settings)


def lint_file(path: Path, settings: LintSettings = _NO_SETTINGS) -> tuple[Finding, ...]:
    """`lint` of an ONNX file, with the weight files beside it.

    Raises:
        ArtifactError: the file is no ONNX model, does not hold together, or lacks its weight files.
    """
    return lint_model(read_model(path), settings)


def lint_model(model: ir.Model, settings: LintSettings = _NO_SETTINGS) -> tuple[Finding, ...]:
    """`lint` of a model that `read_model` returned."""
    view = graph_view(model)
    found = [(rule, violation) for rule in RULES for violation in rule.check(view, settings)]
    found.sort(key=lambda pair: (_place(view, pair[1]), pair[0].id))
    return tuple(_finding(rule, violation) for rule, violation in found)


def has_quantization(model: onnx.ModelProto | ir.Model) -> bool:
    """Whether any QuantizeLinear or DequantizeLinear is in the model: without, TensorRT runs it in float."""
    read = ir.serde.deserialize_model(model) if isinstance(model, onnx.ModelProto) else model
    graphs = [read.graph, *(function.graph for function in read.functions.values())]
    return any(
        node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.domain in QUANTIZATION_DOMAINS
        for graph in graphs
        for node in graph.all_nodes()
    )


def _place(view: GraphView, violation: Violation) -> int:
    return -1 if isinstance(violation.at, str) else view.order[violation.at]


def _finding(rule: Rule, violation: Violation) -> Finding:
    return Finding(
        rule=rule.id,
        level=violation.level or rule.level,
        where=violation.where,
        message=violation.message,
        fix=violation.fix,
    )
