"""What is known of a run, gathered from its folder; what is missing stays None."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import onnx

from saq_qat.errors import ArtifactError
from saq_qat.recipe.load import load_recipe
from saq_qat.recipe.schema import Recipe
from saq_qat.report.engines import BuiltFile, built_engines
from saq_qat.report.evaluation import Evaluation, read_evaluation
from saq_qat.report.subject import SetAside, about, find_checkpoint
from saq_qat.train.choose import Standing
from saq_qat.train.log import read_log
from saq_qat_export.bundle.graph_facts import GraphFacts, graph_facts
from saq_qat_export.proof.prove import Proof
from saq_qat_export.proof.verification import read_verification
from saq_qat_runtime.bench.record import Bench, read_bench
from saq_qat_runtime.bundle.manifest import MANIFEST_FILE, Manifest, bundle_sha256
from saq_qat_runtime.bundle.regular_file import read_regular
from saq_qat_runtime.errors import ModelError, VersionError

__all__ = ["Collected", "collect"]

Record = TypeVar("Record")


@dataclass(frozen=True)
class Collected:
    """A run and what its commands have left behind about the bundle that is there now.

    Attributes:
        environment: of the training, as written to env.json. log: lines of log.jsonl.
        checkpoint: that the bundle was exported from, or that an export would take; None if the run has none.
        bundle_sha256: of the bundle's manifest.
        graph: what the bundle's model for ONNX Runtime tells. engines: of the bundle, by their records.
        proof, bench: what verify and bench found of this very bundle.
        evaluation: what eval found of this checkpoint.
        set_aside: files about something else or of another version; nothing of them is in the fields above.
    """

    run: Path
    recipe: Recipe
    environment: dict[str, Any] | None
    log: tuple[dict[str, Any], ...]
    checkpoint: Standing | None
    manifest: Manifest | None
    bundle_sha256: str | None
    graph: GraphFacts | None
    engines: tuple[BuiltFile, ...]
    proof: Proof | None
    bench: Bench | None
    evaluation: Evaluation | None
    set_aside: tuple[SetAside, ...]


def collect(run: Path) -> Collected:
    """Read a run's folder.

    Raises:
        ArtifactError: it is no run, or a file in it is damaged. ModelError: the bundle's manifest is damaged.
    """
    recipe = run / "resolved.yaml"
    if not recipe.is_file():
        raise ArtifactError(
            f"{run}: no run; it has no resolved.yaml. Name a folder that saq-qat train has written."
        )
    bundle, environment, log = run / "export", run / "env.json", run / "log.jsonl"
    set_aside: list[SetAside] = []
    manifest = _read(
        bundle / MANIFEST_FILE, lambda path: Manifest.load(path.parent), "saq-qat export", set_aside
    )
    digest = None if manifest is None else bundle_sha256(bundle)
    verification = _read(run / "report" / "verify.json", read_verification, "saq-qat verify", set_aside)
    bench = _read(run / "bench" / "bench.json", read_bench, "saq-qat bench", set_aside)
    evaluation = _read(run / "report" / "eval.json", read_evaluation, "saq-qat eval", set_aside)
    exported = None if manifest is None else manifest.checkpoint_sha256
    checkpoint = find_checkpoint(run, exported, set_aside)
    verification = about(verification, "report/verify.json", "saq-qat verify", exported, digest, set_aside)
    bench = about(bench, "bench/bench.json", "saq-qat bench", exported, digest, set_aside)
    known = exported if checkpoint is None else checkpoint.sha256
    evaluation = about(evaluation, "report/eval.json", "saq-qat eval", known, None, set_aside)
    return Collected(
        run=run,
        recipe=load_recipe(recipe),
        environment=_read_json(environment) if environment.is_file() else None,
        log=tuple(read_log(log)) if log.is_file() else (),
        checkpoint=checkpoint,
        manifest=manifest,
        bundle_sha256=digest,
        graph=None if manifest is None else _read_graph(bundle, manifest),
        engines=() if manifest is None else built_engines(bundle, manifest),
        proof=None if verification is None else verification.proof,
        bench=bench,
        evaluation=evaluation,
        set_aside=tuple(set_aside),
    )


def _read(
    path: Path, reader: Callable[[Path], Record], command: str, set_aside: list[SetAside]
) -> Record | None:
    """What ``path`` holds; None where there is no such file, or one of another version, which is set aside.

    Raises:
        ArtifactError: it is damaged.
    """
    if not path.is_file():
        return None
    try:
        return reader(path)
    except VersionError as error:
        set_aside.append(SetAside(f"{path.parent.name}/{path.name}", command, str(error)))
        return None
    except ModelError as error:
        raise ArtifactError(str(error)) from error


def _read_graph(bundle: Path, manifest: Manifest) -> GraphFacts | None:
    model = manifest.models.get("onnxruntime")
    return None if model is None else graph_facts(onnx.load(bundle / model.name))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_regular(path))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path} cannot be read: {error}. 'saq-qat train --resume' writes it again."
        ) from error
    if not isinstance(value, dict):
        raise ArtifactError(f"{path} must hold a JSON object. 'saq-qat train --resume' writes it again.")
    return value
