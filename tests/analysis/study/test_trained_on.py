"""Arms whose recipes name the same images and teacher were trained on the same, or there is no result."""

import json
from dataclasses import replace

import pytest

from saq_qat.analysis.study.arms import ResolvedArm
from saq_qat.analysis.study.run import run_study
from saq_qat.analysis.study.trained_on import Trained, TrainedOn, check_trained_on, read_trained_on
from saq_qat.errors import ArtifactError
from saq_qat.recipe.schema.teacher import Teacher
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
    assert read_trained_on(run).images == "a" * 64


def test_a_damaged_note_is_said_so(stub: Stub) -> None:
    run_study(stub.prepared, stub.command, lambda _: None)
    (run,) = stub.prepared.folder.glob("runs/a-seed0/*")
    (run / "checkpoints" / "last" / "state.json").write_text("[]")
    with pytest.raises(ArtifactError, match=r"state\.json is damaged"):
        read_trained_on(run)


def arms_of(stub: Stub) -> dict[str, ResolvedArm]:
    return {job.arm.name: job.arm for job in stub.prepared.jobs}


def test_other_files_under_the_same_names_are_refused_and_runs_that_do_not_say_pass(stub: Stub) -> None:
    same, other = TrainedOn("n" * 64, "a" * 64), TrainedOn("n" * 64, "b" * 64)
    old = TrainedOn("n" * 64)
    check_trained_on(arms_of(stub), [Trained("a", 0, "A", old), Trained("b", 0, "B", other)])
    check_trained_on(arms_of(stub), [Trained("a", 0, "A", same), Trained("b", 1, "B", other)])
    with pytest.raises(
        ArtifactError, match=r"A was trained on files of images aaa.* B on files of images bbb"
    ):
        check_trained_on(arms_of(stub), [Trained("a", 0, "A", same), Trained("b", 0, "B", other)])


def test_a_teacher_that_changed_under_its_name_is_refused_whatever_the_seed(stub: Stub) -> None:
    def with_teacher(arm: ResolvedArm, run: str) -> ResolvedArm:
        train = arm.recipe.train.model_copy(update={"teacher": Teacher(run=run)})
        return replace(arm, recipe=arm.recipe.model_copy(update={"train": train}))

    runs = [
        Trained(arm, seed, arm.upper(), TrainedOn(teacher=digest * 64))
        for arm, seed, digest in (("a", 0, "1"), ("b", 1, "2"))
    ]
    one = {name: with_teacher(arm, "runs/teacher") for name, arm in arms_of(stub).items()}
    with pytest.raises(ArtifactError, match=r"A was trained by a teacher 111.* B by a teacher 222"):
        check_trained_on(one, runs)
    check_trained_on({name: with_teacher(arm, name) for name, arm in arms_of(stub).items()}, runs)
