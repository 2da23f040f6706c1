"""The runs of a study: which there are, how far each is, and what has to be done next for it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from saq_qat.analysis.study.arms import ResolvedArm
from saq_qat.analysis.study.measure import MEASURED_FILE, read_measured
from saq_qat.analysis.study.schema import Measure, Study
from saq_qat.errors import ArtifactError
from saq_qat.recipe.flat import flat
from saq_qat.recipe.load import load_recipe
from saq_qat.recipe.schema import Recipe
from saq_qat.train.choose import Standing, standing_of
from saq_qat.train.folder import RESOLVED
from saq_qat.train.log import read_log
from saq_qat_runtime.bundle.result_files import write_result
from saq_qat_runtime.errors import VersionError

__all__ = [
    "DIVERGED_FILE",
    "Job",
    "Step",
    "accuracy_of",
    "find_run",
    "jobs_of",
    "mark_diverged",
    "next_step",
    "progress_of",
]

DIVERGED_FILE = Path("analysis", "diverged.json")
"""Below the folder of a run whose training diverged: it would again. Delete it to try."""

_OF_NO_EFFECT = ("data.workers", "train.logs")


@dataclass(frozen=True)
class Job:
    """One arm with one seed.

    Attributes:
        runs: folder of all runs of the study.
        settings: what is measured behind the training.
        threads: of the processes that do both.
    """

    arm: ResolvedArm
    seed: int
    runs: Path
    settings: Measure
    threads: int

    @property
    def name(self) -> str:
        """Of the run's recipe, hence of its folder."""
        return f"{self.arm.name}-seed{self.seed}"

    @property
    def recipe(self) -> Recipe:
        """What the run's recipe resolves to."""
        return self.arm.recipe.model_copy(update={"name": self.name, "seed": self.seed})


@dataclass(frozen=True)
class Step:
    """What is to be done next, as arguments of ``saq-qat``."""

    kind: Literal["train", "resume", "measure"]
    arguments: tuple[str, ...]


def jobs_of(study: Study, arms: dict[str, ResolvedArm], runs: Path, threads: int) -> list[Job]:
    """All runs, seed by seed, so that pairs are complete early."""
    seeds = dict.fromkeys(seed for name in arms for seed in study.seeds_of(name))
    return [
        Job(arm, seed, runs, study.measure, threads)
        for seed in seeds
        for name, arm in arms.items()
        if seed in study.seeds_of(name)
    ]


def find_run(job: Job) -> Path | None:
    """The newest run of exactly the job's recipe; None if there is none.

    Runs of other recipes, from before an arm was changed, stay where they are and are not taken.
    """
    wanted = _numbers(job.recipe)
    folders = sorted((job.runs / job.name).glob(f"*/{RESOLVED}"), reverse=True)
    return next((file.parent for file in folders if _numbers(load_recipe(file)) == wanted), None)


def _numbers(recipe: Recipe) -> dict[str, object]:
    """All of a recipe that its outcome depends on."""
    return {
        key: value for key, value in flat(recipe.model_dump()).items() if not key.startswith(_OF_NO_EFFECT)
    }


def next_step(job: Job) -> Step | None:
    """What is to be done next for a job; None if nothing is.

    Raises:
        SaqError: the folder of its run holds damaged files.
    """
    run = find_run(job)
    if run is None:
        texts = (*job.arm.overrides, f"name={job.name}", f"seed={job.seed}")
        return Step("train", ("train", str(job.arm.path), *texts, "--runs", str(job.runs)))
    if (run / DIVERGED_FILE).is_file():
        return None
    standing = _standing_at_the_end(run, job.settings)
    if standing is None:
        return Step("resume", ("train", "--resume", str(run)))
    if not _is_measured(run, standing, job.settings):
        settings = job.settings.model_dump_json()
        return Step("measure", ("measure", str(run), settings, "--threads", str(job.threads)))
    return None


def mark_diverged(run: Path, message: str) -> None:
    """Note that the training of a run ended so."""
    write_result(run / DIVERGED_FILE, {"message": message})


def _standing_at_the_end(run: Path, settings: Measure) -> Standing | None:
    """The checkpoint that is measured; None unless the log has an end and that step's checkpoint is whole.

    Where it was damaged or deleted, an earlier one stands in its place, from which the training goes on.
    """
    log = run / "log.jsonl"
    lines = read_log(log) if log.is_file() else []
    if not lines or lines[-1].get("event") != "end":
        return None
    last = standing_of(run, "last")
    if last is None or last.step != lines[-1].get("step"):
        return None
    return last if settings.checkpoint == "last" else standing_of(run, settings.checkpoint)


def _is_measured(run: Path, standing: Standing, settings: Measure) -> bool:
    """Whether the checkpoint that is there now was measured as the study says."""
    if not (run / MEASURED_FILE).is_file():
        return False
    try:
        found = read_measured(run)
    except VersionError:
        return False
    return found.checkpoint_sha256 == standing.sha256 and found.settings == settings.model_dump()


def progress_of(job: Job) -> str:
    """Where the training of a job stands, in words; empty before its first step."""
    run = find_run(job)
    log = None if run is None else run / "log.jsonl"
    lines = [] if log is None or not log.is_file() else read_log(log)
    line = next((line for line in reversed(lines) if "epoch" in line and "stage" in line), None)
    if line is None:
        return ""
    epochs = sum(getattr(s, "epochs", 0) for s in job.recipe.train.stages if s.kind == line["stage"])
    where = f"{line['stage']} {line['epoch']}/{epochs}"
    return where if line.get("loss") is None else f"{where} loss {line['loss']:.3f}"


def accuracy_of(job: Job) -> float:
    """Top-1 of a job that is done, in percent: of the integers, where there are any."""
    run = find_run(job)
    if run is None:
        raise ArtifactError(f"{job.runs / job.name}: has no run of arm {job.arm.name!r} any more.")
    measured = read_measured(run)
    return (measured.deployed or measured.fake_quant).top1
