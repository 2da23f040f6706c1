"""Rules of TensorRT over any ONNX file: what builds, what runs as integers, what is fast.

The one rule about CPUs, ORT005, stands in ``pair_bound``.
"""

from saq_qat_export.lint.linter import has_quantization, lint, lint_file, lint_model
from saq_qat_export.lint.reading import read_model
from saq_qat_export.lint.rules import RULES, Rule
from saq_qat_export.lint.settings import LintSettings, batch_profiles

__all__ = [
    "RULES",
    "LintSettings",
    "Rule",
    "batch_profiles",
    "has_quantization",
    "lint",
    "lint_file",
    "lint_model",
    "read_model",
]
