"""What is known of a run, gathered from its folder; what is missing stays None."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from saq_qat.bench.record import Bench, bundle_digest, read_bench
from saq_qat.errors import ArtifactError
from saq_qat.recipe.load import load_recipe
from saq_qat.recipe.schema import Recipe
from saq_qat.report.engines import BuiltFile, built_engines
from saq_qat.train.log import read_log
from saq_qat_export.bundle.graph_facts import GraphFacts, graph_facts
from saq_qat_export.proof.prove import Proof
from saq_qat_runtime.bundle.decode import decode, parse_json
from saq_qat_runtime.bundle.manifest import MANIFEST_FILE, Manifest
from saq_qat_runtime.errors import ModelError

__all__ = ["Collected", "collect"]


@dataclass(frozen=True)
class Collected:
    """A run and what its commands have left behind.

    Attributes:
        environment: of the training, as written to env.json. log: lines of log.jsonl.
        graph: what the bundle's model for ONNX Runtime tells. engines: of the bundle, by their records.
        proof: what verify found. stale: names of files that are older than the bundle they speak of.
    """

    run: Path
    recipe: Recipe
    environment: dict[str, Any] | None
    log: tuple[dict[str, Any], ...]
    manifest: Manifest | None
    graph: GraphFacts | None
    engines: tuple[BuiltFile, ...]
    proof: Proof | None
    bench: Bench | None
    stale: tuple[str, ...]


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
    bundle, verify, bench = (
        run / "export" / MANIFEST_FILE,
        run / "report" / "verify.json",
        run / "bench" / "bench.json",
    )
    environment, log = run / "env.json", run / "log.jsonl"
    manifest = Manifest.load(bundle.parent) if bundle.is_file() else None
    measured = read_bench(bench) if bench.is_file() else None
    stale = []
    if manifest is not None and measured is not None and bundle_digest(manifest) != measured.model_sha256:
        stale.append("bench")
    if manifest is not None and verify.is_file() and verify.stat().st_mtime_ns < bundle.stat().st_mtime_ns:
        stale.append("verify")
    return Collected(
        run=run,
        recipe=load_recipe(recipe),
        environment=_read_json(environment) if environment.is_file() else None,
        log=tuple(read_log(log)) if log.is_file() else (),
        manifest=manifest,
        graph=None if manifest is None else _read_graph(bundle.parent, manifest),
        engines=() if manifest is None else built_engines(bundle.parent, manifest),
        proof=_read_proof(verify) if verify.is_file() else None,
        bench=measured,
        stale=tuple(stale),
    )


def _read_graph(bundle: Path, manifest: Manifest) -> GraphFacts | None:
    model = manifest.models.get("onnxruntime")
    return None if model is None else graph_facts(onnx.load(bundle / model.name))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path} cannot be read: {error}. 'saq-qat train --resume' writes it again."
        ) from error
    if not isinstance(value, dict):
        raise ArtifactError(f"{path} must hold a JSON object. 'saq-qat train --resume' writes it again.")
    return value


def _read_proof(path: Path) -> Proof:
    try:
        return decode(Proof, parse_json(path.read_text(encoding="utf-8"), path.name), path.name)
    except (OSError, UnicodeDecodeError, ModelError) as error:
        raise ArtifactError(
            f"{path} cannot be read as a proof: {error} Run 'saq-qat verify' again."
        ) from error
