"""Arms whose recipes name the same images were trained on the same, or there is no result."""

import json

import pytest

from saq_qat.analysis.study.run import run_study
from saq_qat.analysis.study.same_images import read_images
from saq_qat.errors import ArtifactError
from tests.analysis.study.conftest import Stub


def note_images(stub: Stub, job: str, images: str | None) -> None:
    """As if the run of a job had been trained on these."""
    (state,) = stub.prepared.folder.glob(f"runs/{job}/*/checkpoints/last/state.json")
    found = json.loads(state.read_text())
    found["progress"]["images"] = images
    state.write_text(json.dumps(found))


def trained(stub: Stub, monkeypatch: pytest.MonkeyPatch, images: dict[str, str]) -> None:
    """The study again, whose checkpoints name these images; their digests are not what is tested."""
    run_study(stub.prepared, stub.command, lambda _: None)
    for job, digest in images.items():
        note_images(stub, job, digest)
    monkeypatch.setattr("saq_qat.analysis.study.run.run_jobs", lambda *_: [])
    run_study(stub.prepared, stub.command, lambda _: None)


@pytest.fixture(autouse=True)
def all_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saq_qat.analysis.study.run.next_step", lambda _: None)


def test_arms_of_a_seed_that_were_trained_on_other_images_are_refused(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        ArtifactError, match=r"(?s)a-seed1.*trained on images aaa.*b-seed1.*delete the run"
    ) as told:
        trained(stub, monkeypatch, {"a-seed1": "a" * 64, "b-seed1": "b" * 64})
    assert "seed0" not in str(told.value)


def test_seeds_may_have_images_of_their_own_and_runs_may_name_none(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(stub, monkeypatch, {"a-seed0": "a" * 64, "b-seed0": "a" * 64, "a-seed1": "b" * 64})
    (run,) = stub.prepared.folder.glob("runs/a-seed0/*")
    assert read_images(run) == "a" * 64


def test_a_damaged_note_is_said_so(stub: Stub) -> None:
    run_study(stub.prepared, stub.command, lambda _: None)
    (run,) = stub.prepared.folder.glob("runs/a-seed0/*")
    (run / "checkpoints" / "last" / "state.json").write_text("[]")
    with pytest.raises(ArtifactError, match=r"state\.json is damaged"):
        read_images(run)
