"""study.json: every run's numbers, and the statistics of arms and comparisons."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from saq_qat.analysis.study.arms import Kind, ResolvedArm, comparison_kind, image_passes
from saq_qat.analysis.study.jobs import DIVERGED_FILE, Job, find_run
from saq_qat.analysis.study.machines import read_machine
from saq_qat.analysis.study.measure import read_measured
from saq_qat.analysis.study.quantities import QUANTITIES, RunResult, value_of
from saq_qat.analysis.study.schema import Study
from saq_qat.analysis.study.statistics import METHOD, PairedDifference, Spread, paired_difference, spread_of
from saq_qat.analysis.study.trained_on import Trained, check_trained_on, read_trained_on
from saq_qat.errors import ArtifactError
from saq_qat.version import __version__
from saq_qat_runtime.bundle.result_files import decode_result, read_result, write_result

__all__ = [
    "RESULT_FILE",
    "RUN_AGAIN",
    "ArmResult",
    "ComparisonResult",
    "StudyResult",
    "arm_result",
    "collect",
    "compared",
    "read_study_result",
    "write_study_result",
]

RESULT_FILE = "study.json"
SCHEMA_VERSION = 3
RUN_AGAIN = "Run 'saq-qat study' again with the study's file."
_KEYS = tuple(quantity.key for quantity in QUANTITIES)


@dataclass(frozen=True)
class ArmResult:
    """An arm over its seeds.

    Attributes:
        recipe: file of its recipe. overrides: all that were set in it, but for name and seed.
        differs_in: as the study has it: what it declares to differ in, beside what its overrides name.
        image_passes: how often its stages pass each training image through the network.
        diverged: seeds without numbers, because their training diverged.
        quantities: by key; those that no run of the arm has are absent.
    """

    name: str
    recipe: str
    overrides: tuple[str, ...]
    seeds: tuple[int, ...]
    diverged: tuple[int, ...]
    differs_in: tuple[str, ...]
    image_passes: float
    quantities: dict[str, Spread]


@dataclass(frozen=True)
class ComparisonResult:
    """Two arms, ``of`` minus ``against``.

    Attributes:
        kind: whether both passed the training images as often in epochs, or else in forward and backward
            passes, or neither.
        quantities: by key; those that no seed of both arms has are absent.
    """

    of: str
    against: str
    kind: Kind
    quantities: dict[str, PairedDifference]


@dataclass(frozen=True)
class StudyResult:
    """A study that was run to its end.

    Attributes:
        created: UTC, ISO 8601. created_by: the version that wrote it.
        statistics: how intervals and tests were computed.
        checkpoint: which one of each run; its digest stands with each run.
    """

    schema_version: int
    created: str
    created_by: str
    name: str
    statistics: str
    checkpoint: str
    arms: tuple[ArmResult, ...]
    runs: tuple[RunResult, ...]
    comparisons: tuple[ComparisonResult, ...]


def collect(study: Study, arms: Mapping[str, ResolvedArm], jobs: Sequence[Job], folder: Path) -> StudyResult:
    """The result of a study whose jobs are all done, in ``folder``.

    Raises:
        ArtifactError, ModelError: the files of a run are missing or damaged, or runs that should have been
            trained on the same images, or by the same teacher, were not.
    """
    trained = [_trained(job, folder) for job in jobs]
    runs = tuple(_run_result(each, folder) for each in trained)
    check_trained_on(arms, trained)
    return StudyResult(
        schema_version=SCHEMA_VERSION,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        created_by=f"saq-qat {__version__}",
        name=study.name,
        statistics=METHOD,
        checkpoint=study.measure.checkpoint,
        arms=tuple(_arm_of(arm, study, runs) for arm in arms.values()),
        runs=runs,
        comparisons=tuple(
            compared(
                pair.of, pair.against, comparison_kind(arms[pair.of].recipe, arms[pair.against].recipe), runs
            )
            for pair in study.comparisons
        ),
    )


def _trained(job: Job, folder: Path) -> Trained:
    run = find_run(job)
    if run is None:
        raise ArtifactError(f"{job.runs / job.name}: has no run of arm {job.arm.name!r}. {RUN_AGAIN}")
    return Trained(job.arm.name, job.seed, str(run.relative_to(folder)), read_trained_on(run))


def _run_result(trained: Trained, folder: Path) -> RunResult:
    run = folder / trained.place
    measured = None if (run / DIVERGED_FILE).is_file() else read_measured(run)
    return RunResult(trained.arm, trained.seed, trained.place, trained.on.images, read_machine(run), measured)


def _values(runs: Sequence[RunResult], arm: str, key: str) -> dict[int, float]:
    found = {run.seed: value_of(run, key) for run in runs if run.arm == arm}
    return {seed: float(value) for seed, value in found.items() if value is not None}


def _arm_of(arm: ResolvedArm, study: Study, runs: Sequence[RunResult]) -> ArmResult:
    return arm_result(
        arm.name,
        recipe=str(arm.path),
        overrides=arm.overrides,
        differs_in=study.arms[arm.name].differs_in,
        image_passes=image_passes(arm.recipe),
        runs=runs,
    )


def arm_result(
    name: str,
    *,
    recipe: str,
    overrides: tuple[str, ...],
    differs_in: tuple[str, ...],
    image_passes: float,
    runs: Sequence[RunResult],
) -> ArmResult:
    """An arm over those of the runs that are its own; all else is given, as its attributes have it."""
    own = [run for run in runs if run.arm == name]
    spreads = {key: spread_of(list(_values(runs, name, key).values())) for key in _KEYS}
    return ArmResult(
        name=name,
        recipe=recipe,
        overrides=overrides,
        seeds=tuple(run.seed for run in own),
        diverged=tuple(run.seed for run in own if run.measured is None),
        differs_in=differs_in,
        image_passes=image_passes,
        quantities={key: spread for key, spread in spreads.items() if spread is not None},
    )


def compared(of: str, against: str, kind: Kind, runs: Sequence[RunResult]) -> ComparisonResult:
    """Two arms in every quantity that a seed of both has."""
    pairs = {key: paired_difference(_values(runs, of, key), _values(runs, against, key)) for key in _KEYS}
    return ComparisonResult(of, against, kind, {key: pair for key, pair in pairs.items() if pair.seeds})


def write_study_result(result: StudyResult, folder: Path) -> None:
    """Write it whole or not at all.

    Raises:
        ResultError: a number is not finite, or the file cannot be written.
    """
    write_result(folder / RESULT_FILE, asdict(result))


def read_study_result(folder: Path) -> StudyResult:
    """Read it.

    Raises:
        ArtifactError: the folder has none.
        VersionError: it is of another version. ModelError: it is damaged.
    """
    path = folder / RESULT_FILE
    if not path.is_file():
        raise ArtifactError(
            f"{path}: no such file, so the study is not complete, or this is not its folder. {RUN_AGAIN}"
        )
    return decode_result(StudyResult, read_result(path, SCHEMA_VERSION, RUN_AGAIN), path, RUN_AGAIN)
