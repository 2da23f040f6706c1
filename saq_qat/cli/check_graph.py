"""`saq-qat check` of an ONNX file: what the rules of the targets say of its graph, whoever wrote it."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from saq_qat.cli.console import print_json
from saq_qat.cli.findings import count_errors, count_levels, one_line, print_findings, refuse

if TYPE_CHECKING:
    import onnx_ir as ir

    from saq_qat.quant.plan.plan import Finding
    from saq_qat_runtime.tensorrt.build.engine import BuiltEngine

__all__ = ["CHECK_SCHEMA", "Target", "check_graph"]

CHECK_SCHEMA = 1
"""Version of what ``check --json`` prints."""


class Target(StrEnum):
    """Whose rules an ONNX file can be held against."""

    onnxruntime = "onnxruntime"
    tensorrt = "tensorrt"


@dataclass(frozen=True)
class _Judgement:
    """What the rules of one target say of an ONNX file.

    Attributes:
        notes: how it was judged, and the outcome, a line each.
        built: the engine that was built to see whether it can be.
    """

    findings: "tuple[Finding, ...]"
    notes: tuple[str, ...]
    built: "BuiltEngine | None" = None


def check_graph(
    file: Path, batch: tuple[int, int, int], target: Target | None, *, build: bool, as_json: bool
) -> None:
    """Print the findings of each target, and fail if one of them is an error.

    Raises:
        ModelError: it is no ONNX file. LegalityError: a target cannot run it.
    """
    from saq_qat_export.lint import read_model

    model = read_model(file)
    judgements: dict[str, _Judgement] = {}
    if target != Target.onnxruntime:
        judgements["tensorrt"] = _tensorrt_judgement(file, model, batch, build=build)
    if target != Target.tensorrt:
        judgements["onnxruntime"] = _pair_judgement(file, is_asked_for=target is not None)
    if as_json:
        _print_graph_json(file, judgements)
    else:
        for judgement in judgements.values():
            _print_judgement(judgement)
    refuse(file, [finding for each in judgements.values() for finding in each.findings])


def _print_judgement(judgement: _Judgement) -> None:
    from saq_qat.cli.build import print_build

    if judgement.built is not None:
        print_build(judgement.built)
    print_findings(judgement.findings)
    for note in judgement.notes:
        typer.echo(one_line(note))


def _print_graph_json(file: Path, judgements: dict[str, _Judgement]) -> None:
    targets = {
        target: {
            "notes": each.notes,
            "findings": [asdict(finding) for finding in each.findings],
            "engine": None if each.built is None else asdict(each.built.record),
        }
        for target, each in judgements.items()
    }
    errors = count_errors([finding for each in judgements.values() for finding in each.findings])
    print_json(
        {"schema_version": CHECK_SCHEMA, "file": str(file), "passed": not errors, "targets": targets},
        "check",
    )


def _pair_judgement(file: Path, *, is_asked_for: bool) -> _Judgement:
    """Rule ORT005; of a file for TensorRT, unless asked for, no more than that it is none for CPUs."""
    import onnx

    from saq_qat_export.lint.pair_bound import integer_products, is_for_tensorrt, pair_finding

    model = onnx.load(file)
    products = integer_products(model)
    over = [product for product in products if product.exceeds]
    where = f"{len(over)} of {len(products)} integer products exceed the pair bound"
    if over and not is_asked_for and is_for_tensorrt(products, model):
        note = f"{file}: int8 codes throughout, so for TensorRT; on x86 CPUs {where} (--target onnxruntime)."
        return _Judgement((), (note,))
    findings = tuple(pair_finding(product) for product in over)
    return _Judgement(findings, (f"{file}: {where} for target onnxruntime.",))


def _tensorrt_judgement(
    file: Path, model: "ir.Model", batch: tuple[int, int, int], *, build: bool
) -> _Judgement:
    from saq_qat_export.lint import LintSettings, batch_profiles, has_quantization, lint_model
    from saq_qat_export.tensorrt.engine_rules import try_build
    from saq_qat_runtime.tensorrt.build.options import BuildOptions

    profiles = batch_profiles(model, *batch)
    findings = lint_model(model, LintSettings(profiles=profiles))
    built, refusals = try_build(file, BuildOptions(batch=batch)) if build else (None, ())
    findings += refusals
    notes = [
        f"{profile.input}: dynamic batch, judged for {', '.join(map(str, batch))} (minimum, optimum, "
        "maximum); --batch sets others."
        for profile in profiles
    ]
    if not has_quantization(model):
        notes.append("The file has no quantized tensor: TensorRT runs it in float.")
    notes.append(f"{file}: {count_levels(findings)} for target tensorrt.")
    return _Judgement(findings, tuple(notes), built)
