"""A run with everything a page can show, whose every name from outside is hostile."""

import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from saq_qat.report.collect import Collected, collect
from saq_qat.report.evaluation import evaluate_checkpoint
from saq_qat.train.restore import restore
from saq_qat_export.proof.verification import Verification, write_verification
from saq_qat_runtime.bench.interleave import Latency
from saq_qat_runtime.bench.record import write_bench
from tests.report.conftest import digests, measured, proof

HOSTILE = "W\u202eW\u2066WWWWWW<script>alert(1)</script>&\"'`|*_]]> {{ 7*7 }} </script>"
FLIPPED = 3


@pytest.fixture(scope="session")
def evaluated(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exported run, verified with one flip, measured and evaluated; not to be changed."""
    run = Path(shutil.copytree(exported, tmp_path_factory.mktemp("html") / "run"))
    verification = Verification("2026-01-01", *digests(run), proof(flips=1))
    write_verification(verification, run / "report" / "verify.json")
    bench = dataclasses.replace(
        measured(20.0, checkpoint_sha256=digests(run)[0], bundle_sha256=digests(run)[1])
    )
    latencies = {
        timing.candidate: Latency(
            tuple(round(timing.latency.median_ms * 1e6 * (1 + i / 500)) for i in range(120))
        )
        for timing in bench.timings
    }
    write_bench(bench, {1: latencies}, run / "bench")
    evaluate_checkpoint(restore(run, "best"), "best", torch.device("cpu"), run / "report", lambda _: None)
    return run


@pytest.fixture(scope="session")
def known(evaluated: Path) -> Collected:
    return collect(evaluated)


@pytest.fixture(scope="session")
def hostile(known: Collected) -> Collected:
    """The same run with hostile names of recipe, labels, layers and candidates."""
    assert known.manifest is not None and known.bench is not None and known.evaluation is not None
    labels = tuple(f"{HOSTILE}{label}" for label in known.manifest.labels)
    layers = tuple(dataclasses.replace(layer, reason=HOSTILE) for layer in known.manifest.layers)
    manifest = dataclasses.replace(known.manifest, labels=labels, layers=layers)
    bench = dataclasses.replace(known.bench, notes=(HOSTILE,), not_run=(HOSTILE,))
    recipe = known.recipe.model_copy(update={"name": HOSTILE})
    return dataclasses.replace(
        known,
        recipe=recipe,
        manifest=manifest,
        bench=bench,
        environment={"cpu": HOSTILE * 3},
    )
