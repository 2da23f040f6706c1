"""The report of a run as text of 80 columns: verdict, accuracy, proof, latency, sizes, training, network."""

from saq_qat.quant.plan.float_operations import WHY_FLOAT
from saq_qat.report.accuracy import flip_interval
from saq_qat.report.collect import Collected
from saq_qat.report.engines import engine_lines
from saq_qat.report.narrow import table_lines
from saq_qat.report.network_text import cpu_lines, layer_lines, tensor_lines
from saq_qat.report.tables import Table, accuracy_table, candidate_table, gpu_table, latency_table
from saq_qat.report.training_text import training_lines
from saq_qat.report.verdict import (
    Verdict,
    busy_lines,
    comparisons,
    fix_of,
    integer_products,
    judge_run,
    missing_steps,
    warnings_of,
)
from saq_qat_export.proof.prove import KERNEL_COMPARISON
from saq_qat_runtime.bundle.result_files import short_digest
from saq_qat_runtime.report.bench_text import (
    describe_machine,
    size_lines,
    speed_verdicts,
)
from saq_qat_runtime.report.gpu_text import gpu_machine_lines
from saq_qat_runtime.report.narrow import fitted
from saq_qat_runtime.report.text import RATE_NOTE, counted, section

__all__ = ["report_text"]

_FLIPS_SHOWN = 5


def report_text(known: Collected, *, full: bool = False) -> list[str]:
    """The whole report, line by line, in 80 columns; the verdict comes first.

    Args:
        full: list every block of the network, also those that are alike.
    """
    missing = missing_steps(known)
    lines = [
        *_verdict(judge_run(known)),
        "",
        f"{known.recipe.name}, run {known.run}",
        *_subject(known),
        *section("Accuracy", _accuracy(known)),
        *section("Proof", _proof(known)),
        *_latency(known),
        *section("Integer products", _integer(known)),
        *section("Stays float", _float(known)),
        *_engines(known),
        *section("Size", ["no bundle yet"] if known.manifest is None else size_lines(known.manifest.sizes)),
        *section("Training", training_lines(known)),
        *section("Layers, bits: codes", [*layer_lines(known, fold=not full), *cpu_lines(known)]),
        *section("Activations", tensor_lines(known, fold=not full)),
        *section("Warnings", warnings_of(known)),
        *section("Not measured", missing or ["nothing"]),
        *section("Made by", _made_by(known)),
    ]
    return fitted(lines)


def _verdict(verdict: Verdict) -> list[str]:
    """The verdict with its first reason, then a line for each other one."""
    first, *others = str(verdict).split("; ")
    return [first, *(f"  {each}" for each in others)]


def _subject(known: Collected) -> list[str]:
    """The artifact that all figures are about."""
    if known.checkpoint is None:
        return []
    digest = short_digest(known.checkpoint.sha256)
    if known.bundle_sha256 is None:
        return [f"checkpoint {known.checkpoint}, {digest}"]
    return [f"bundle {short_digest(known.bundle_sha256)} of checkpoint {known.checkpoint}, {digest}"]


def _accuracy(known: Collected) -> list[str]:
    lines = table_lines(accuracy_table(known))
    if known.proof is None:
        return lines
    found = known.proof.agreement
    low, high = flip_interval(found.flips, found.images)
    lines.append(
        f"{found.flips} of {found.images:,} predictions differ from fake-quant: "
        f"{found.flips / found.images:.2%} (95 % interval {low:.2%} to {high:.2%})"
    )
    names = known.manifest.labels if known.manifest is not None else ()
    for flip in found.listed[:_FLIPS_SHOWN]:
        was, now, truth = (
            names[i] if i < len(names) else str(i) for i in (flip.fake_quant, flip.deployed, flip.label)
        )
        lines.append(f"  image {flip.index}: {was} -> {now} (labelled {truth})")
    return lines


def _proof(known: Collected) -> list[str]:
    found, fix = comparisons(known), fix_of(known)
    if not found:
        return ["no bundle was proved yet"]
    rows = tuple(
        (
            "pass" if each.passed else "FAIL",
            "hard" if each.hard else "soft",
            f"{each.compared:,}",
            f"{each.mismatches:,}",
            f"{each.name}: {each.detail}" if each.detail else each.name,
        )
        for each in found
    )
    table = Table(("", "", "compared", "differ", "comparison"), rows, (0, 1, 4))
    return [*table_lines(table), *([fix] if fix else [])]


def _latency(known: Collected) -> list[str]:
    bench, candidates = known.bench, candidate_table(known)
    if bench is None or candidates is None:
        return section("Latency", [f"not measured: saq-qat bench {known.run}"])
    lines = section("Latency", [*busy_lines(bench), *speed_verdicts(bench)])
    for batch in bench.batches:
        title = f"Latency at batch {batch}, {counted(bench.threads, 'thread')}"
        lines += section(title, table_lines(latency_table(known, batch)))
    if bench.gpu is not None:
        for batch in dict.fromkeys(timing.batch for timing in bench.gpu.timings):
            title = f"Latency on the GPU at batch {batch}, {bench.gpu.backend} {bench.gpu.version}"
            lines += section(title, table_lines(gpu_table(bench.gpu, batch)))
    return [
        *lines,
        *(section("Did not take part", bench.not_run) if bench.not_run else []),
        *section("What ran", table_lines(candidates)),
        *section("Notes on latency", [*bench.notes, RATE_NOTE]),
    ]


def _engines(known: Collected) -> list[str]:
    if known.manifest is None or "tensorrt" not in known.manifest.models:
        return []
    lines = engine_lines(known.engines, known.bench)
    return section("TensorRT engines", lines or [f"none was built: saq-qat build {known.run / 'export'}"])


def _integer(known: Collected) -> list[str]:
    count = integer_products(known)
    if count is None:
        counted = [
            comparison.detail for comparison in comparisons(known) if comparison.name == KERNEL_COMPARISON
        ]
        return counted or ["not counted: run saq-qat verify or saq-qat bench"]
    kinds = ", ".join(f"{name} {number}" for name, number in count.by_op.items())
    return [f"{count.label}: {kinds}" if kinds else count.label]


def _float(known: Collected) -> list[str]:
    if known.graph is None:
        return ["no bundle for ONNX Runtime yet"]
    found = known.graph.float_operations
    if not found:
        return ["no operation between the codes"]
    counts = ", ".join(f"{count} {name}" for name, count in found.items())
    return [f"{sum(found.values())} operations of float32 between the codes: {counts}", WHY_FLOAT]


def _made_by(known: Collected) -> list[str]:
    lines = []
    if known.environment is not None:
        facts = ", ".join(
            f"{key} {value}" for key, value in known.environment.items() if value not in (None, "")
        )
        lines.append(f"training: {facts}")
    if known.manifest is not None:
        versions = ", ".join(f"{name} {version}" for name, version in known.manifest.versions.items())
        lines.append(f"export: {known.manifest.created_by}, {versions}")
    if known.bench is not None:
        machine = " | ".join(describe_machine(known.bench.environment, known.bench.threads))
        lines.append(f"bench ({known.bench.created}): {machine}")
        lines += gpu_machine_lines(known.bench.gpu)
    return lines or ["unknown"]
