"""runs.csv: a line for each run of a study, for spreadsheets and other people's statistics."""

import csv
import io
from collections.abc import Iterator
from dataclasses import asdict, fields

from saq_qat.analysis.study.machines import Machine
from saq_qat.analysis.study.quantities import QUANTITIES, RunResult, value_of
from saq_qat.analysis.study.result import StudyResult

__all__ = ["runs_csv"]

_KEYS = tuple(quantity.key for quantity in QUANTITIES)
_MACHINE = tuple(field.name for field in fields(Machine))
_COLUMNS = ("arm", "seed", *_KEYS, "train_top1", "checkpoint_sha256", "measured", *_MACHINE)


def runs_csv(result: StudyResult) -> str:
    """The runs of a study as comma-separated values behind a line of column names.

    Quantities have the keys, the units and all digits of study.json; what a run lacks is empty.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(dict(_cells(run)) for run in result.runs)
    return text.getvalue()


def _cells(run: RunResult) -> Iterator[tuple[str, str | float | None]]:
    yield from (("arm", run.arm), ("seed", run.seed))
    yield from ((key, value_of(run, key)) for key in _KEYS)
    if run.measured is not None:
        yield "train_top1", run.measured.train_top1
        yield "checkpoint_sha256", run.measured.checkpoint_sha256
        yield "measured", run.measured.created
    if run.machine is not None:
        yield from asdict(run.machine).items()
