"""A study from its file to its result: runs, numbers, statistics, pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from saq_qat.analysis.study.arms import resolve_arms
from saq_qat.analysis.study.check import check_result
from saq_qat.analysis.study.inputs import hold_inputs
from saq_qat.analysis.study.jobs import Job, jobs_of, next_step
from saq_qat.analysis.study.page import page
from saq_qat.analysis.study.pictures import require_packages, write_pictures
from saq_qat.analysis.study.result import (
    RESULT_FILE,
    StudyResult,
    collect,
    read_study_result,
    write_study_result,
)
from saq_qat.analysis.study.runner import Failure, OnStates, run_jobs
from saq_qat.analysis.study.runs_csv import runs_csv
from saq_qat.analysis.study.schema import Study, load_study
from saq_qat.analysis.study.text import text_of
from saq_qat.errors import SaqError
from saq_qat.train.files import locked, make_folder, write_whole
from saq_qat.train.stop import stop_on_signals

__all__ = ["Prepared", "StudyFailedError", "prepare_study", "report_study", "run_study"]

TABLE_FILE, RUNS_FILE, PAGE_FILE, PICTURES = "table.txt", "runs.csv", "study.html", "pictures"


class StudyFailedError(SaqError):
    """A run failed, so there is no result; with the exit code of the first that did."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code if code in range(1, 6) else 1


@dataclass(frozen=True)
class Prepared:
    """A study that may begin: ``text`` is its file as written, ``folder`` holds all that comes of it."""

    study: Study
    text: bytes
    folder: Path
    jobs: tuple[Job, ...]
    processes: int

    @property
    def changes_another(self) -> bool:
        """Whether the folder is that of a study written otherwise: an earlier form of it, or a namesake."""
        before = self.folder / "study.yaml"
        return before.is_file() and before.read_bytes() != self.text


def prepare_study(
    path: Path,
    overrides: Sequence[str],
    root: Path,
    *,
    processes: int | None = None,
    threads: int | None = None,
) -> Prepared:
    """Read a study and check all that can be checked before anything is trained.

    Args:
        overrides: of the recipes of all arms, before their own.
        root: folder of all studies.
        processes, threads: in place of the study's.

    Raises:
        RecipeError: the study or a recipe is wrong, or arms differ in more than they name.
        SetupError: a package is missing.
    """
    require_packages()
    study = load_study(path)
    arms = resolve_arms(study, path.parent, tuple(overrides))
    folder = root / study.name
    jobs = jobs_of(study, arms, folder / "runs", threads or study.threads)
    return Prepared(study, path.read_bytes(), folder, tuple(jobs), processes or study.processes)


def run_study(
    prepared: Prepared,
    command: Sequence[str],
    on_states: OnStates,
    on_begin: Callable[[int], None] = lambda _: None,
) -> StudyResult:
    """Do what is left to do, then write study.json, table.txt, runs.csv and pictures.

    An older study.json is removed before the first run begins: it stands there for complete studies only.

    Args:
        command: as of ``run_jobs``.
        on_begin: told how many jobs are left to do.

    Raises:
        StudyStoppedError: a signal came; all has been saved.
        StudyFailedError: runs failed; names them.
        ArtifactError: a file of weights has changed since runs began from it.
        SaqError: another process runs this study, or files are damaged or cannot be written.
    """
    folder = prepared.folder
    make_folder(folder)
    with locked(folder), stop_on_signals() as stop:
        hold_inputs(folder, [job.recipe for job in prepared.jobs])
        write_whole(folder / "study.yaml", prepared.text)
        left = sum(next_step(job) is not None for job in prepared.jobs)
        on_begin(left)
        if left:
            (folder / RESULT_FILE).unlink(missing_ok=True)
        failures = run_jobs(prepared.jobs, prepared.processes, command, folder / "logs", stop, on_states)
    if failures:
        raise _failed(failures, folder)
    arms = {job.arm.name: job.arm for job in prepared.jobs}
    result = collect(prepared.study, arms, prepared.jobs, folder)
    _write(result, folder)
    return result


def report_study(folder: Path) -> StudyResult:
    """Read a study that is complete, and write its page, tables and pictures.

    Raises:
        ArtifactError: it is not complete, a run holds another checkpoint than the one that was measured, or
            the file was changed since.
    """
    require_packages()
    result = read_study_result(folder)
    check_result(result, folder)
    _write(result, folder)
    write_whole(folder / PAGE_FILE, page(result).encode())
    return result


def _write(result: StudyResult, folder: Path) -> None:
    write_study_result(result, folder)
    write_whole(folder / TABLE_FILE, text_of(result).encode())
    write_whole(folder / RUNS_FILE, runs_csv(result).encode())
    write_pictures(result, folder / PICTURES)


def _failed(failures: Sequence[Failure], folder: Path) -> StudyFailedError:
    told = "\n".join(failure.told(folder / "logs") for failure in failures)
    return StudyFailedError(
        f"{told}\n{len(failures)} run(s) failed, so {folder / RESULT_FILE} was not written. Mend it and give "
        "the same command again: what is done stays done.",
        failures[0].code,
    )
