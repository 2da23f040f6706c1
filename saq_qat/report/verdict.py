"""One line that says how the deployment stands, and what is missing to say more."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from saq_qat.report.collect import Collected
from saq_qat.report.engines import audit_label, engine_warnings, missed_layers
from saq_qat.report.training_text import last_behind_best
from saq_qat_export.proof.comparison import Comparison
from saq_qat_export.proof.fixes import failed_checks, flip_fix
from saq_qat_runtime.bench.record import Bench
from saq_qat_runtime.bundle.gate import ComparisonRecord
from saq_qat_runtime.bundle.manifest import MANIFEST_FILE
from saq_qat_runtime.bundle.result_files import short_digest
from saq_qat_runtime.kernels import IntegerCount
from saq_qat_runtime.report.bench_text import bench_warnings, pace
from saq_qat_runtime.report.gpu_text import gpu_verdicts
from saq_qat_runtime.report.text import percent, times

__all__ = [
    "Verdict",
    "busy_lines",
    "comparisons",
    "fix_of",
    "int8_was_faster",
    "integer_products",
    "judge_run",
    "missing_steps",
    "warnings_of",
]


@dataclass(frozen=True)
class Verdict:
    """PASS: proved and measured. FAIL: a hard comparison failed. INCOMPLETE: something is not known yet."""

    status: Literal["PASS", "FAIL", "INCOMPLETE"]
    reason: str

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}"


def judge_run(known: Collected) -> Verdict:
    """The verdict on what was collected; speed is told, and fails nothing."""
    failed = failed_checks(comparisons(known)) + missed_layers(known.engines)
    if failed:
        return Verdict("FAIL", "; ".join(failed))
    missing = missing_steps(known)
    if known.manifest is None:
        return Verdict("INCOMPLETE", "; ".join(missing))
    facts = "; ".join(_facts(known))
    if missing:
        return Verdict("INCOMPLETE", f"{facts}; {'; '.join(missing)}")
    return Verdict("PASS", facts)


def comparisons(known: Collected) -> tuple[Comparison | ComparisonRecord, ...]:
    """Of this bundle's newest proof: verify's, else the one that export made."""
    if known.proof is not None:
        return known.proof.comparisons
    return () if known.manifest is None else known.manifest.gate.comparisons


def fix_of(known: Collected) -> str:
    """Why too many answers changed, and what to do about it; empty where that is not so or not known."""
    forms = [line.get("form") for line in known.log if line.get("event") == "epoch"]
    return flip_fix(comparisons(known), biases_learned=forms[-1:] == ["deploy"])


def integer_products(known: Collected) -> IntegerCount | None:
    """Products on integer kernels, as counted in the engine's graph by bench or verify."""
    candidate = None if known.bench is None else known.bench.candidate(known.bench.bundle)
    if candidate is not None and candidate.integer is not None:
        return candidate.integer
    return None if known.proof is None else known.proof.kernels


def missing_steps(known: Collected) -> list[str]:
    """What was not measured yet, each with the command that does."""
    if known.recipe.quant is None:
        return ["the recipe trains in full precision, so there are no integers to deploy"]
    if known.manifest is None:
        return [_set_aside(known, f"export/{MANIFEST_FILE}") or f"no bundle yet: saq-qat export {known.run}"]
    found = []
    if known.checkpoint is None:
        digest = short_digest(known.manifest.checkpoint_sha256)
        found.append(
            f"the bundle was exported from checkpoint {digest}, which the run does not have: "
            f"saq-qat export {known.run}"
        )
    if known.proof is None:
        other = _set_aside(known, "report/verify.json")
        found.append(other or f"not verified: saq-qat verify {known.run}")
    if known.bench is None:
        other = _set_aside(known, "bench/bench.json")
        found.append(other or f"latency not measured: saq-qat bench {known.run}")
    return found


def _set_aside(known: Collected, file: str) -> str:
    """Why the figures of this file are not shown; empty if they are, or if there is no such file."""
    return next((each.reason for each in known.set_aside if each.file == file), "")


def warnings_of(known: Collected) -> list[str]:
    """What to know before quoting the report."""
    found = []
    if known.manifest is not None and known.manifest.gate.allowed_failed:
        found.append("the bundle was written although its gate failed (--allow-failed-gate)")
    found += [
        f"{comparison.name}: {comparison.detail}"
        for comparison in comparisons(known)
        if not (comparison.hard or comparison.passed)
    ]
    count = integer_products(known)
    if count is not None and count.integer < count.total:
        found.append(f"not to be called integer: {count.label}")
    skipped = sum(line.get("event") == "skipped" for line in known.log)
    if skipped:
        found.append(f"{skipped} training step(s) were skipped because a gradient was not finite")
    found += last_behind_best(known.log)
    if known.bench is not None:
        found += int8_was_faster(known.bench)
    found.append(
        f"accuracies are those of one training (seed {known.recipe.seed}): small differences may be chance"
    )
    missing = missing_steps(known)
    found += [each.reason for each in known.set_aside if each.reason not in missing]
    found += engine_warnings(known.engines)
    if known.bench is not None:
        # What holds for the machine comes first: it explains what is said of single candidates.
        found += sorted(bench_warnings(known.bench), key=lambda warning: ": not steady" in warning)
    return found


def busy_lines(bench: Bench) -> list[str]:
    """That others used the machine meanwhile, and how much of it they left; empty where it was idle."""
    cautions = (caution for timing in bench.timings for caution in timing.cautions)
    found = dict.fromkeys(caution for caution in cautions if caution.startswith("busy machine"))
    return [f"{caution}: latencies are those of a shared machine" for caution in found]


def int8_was_faster(bench: Bench) -> list[str]:
    """A sentence for each batch size at which ONNX Runtime's own static int8 beats the bundle."""
    timings = [bench.timing(bench.bundle, batch) for batch in bench.batches]
    return [
        f"static int8 on ONNX Runtime was FASTER at batch {timing.batch}: "
        f"the bundle has {times(timing.over_int8.median)} its speed"
        for timing in timings
        if timing is not None and timing.over_int8 is not None and timing.over_int8.median < 1
    ]


def _facts(known: Collected) -> Iterator[str]:
    hard = [comparison for comparison in comparisons(known) if comparison.hard]
    if hard:
        yield f"integers proved ({hard[0].mismatches} of {hard[0].compared:,} codes differ)"
    if known.proof is not None:
        found = known.proof.agreement
        yield (
            f"deployed top-1 {percent(found.engine_top1)} % (fake-quant {percent(found.fake_quant_top1)} %, "
            f"{found.flips} of {found.images} predictions flip)"
        )
    if known.bench is not None:
        timings = [known.bench.timing(known.bench.bundle, batch) for batch in known.bench.batches[:1]]
        yield from (f"batch {timing.batch}: {pace(timing)}" for timing in timings if timing is not None)
        yield from int8_was_faster(known.bench)[:1]
        yield from gpu_verdicts(known.bench)[:1]
    for engine in (each for each in known.engines if not each.stale):
        yield f"{engine.record.flavour} engine {audit_label(engine.record.audit)}"
    count = integer_products(known)
    if count is not None:
        yield count.label
    if known.manifest is not None:
        sizes = known.manifest.sizes
        smaller = {target: times(sizes.float_bytes / max(n, 1)) for target, n in sizes.file_bytes.items()}
        yield "file " + ", ".join(f"for {target} {ratio} smaller" for target, ratio in smaller.items())
