"""runs.csv has every number of every run as study.json does."""

import csv
import io

from saq_qat.analysis.study.machines import Machine
from saq_qat.analysis.study.quantities import QUANTITIES, value_of
from saq_qat.analysis.study.runs_csv import runs_csv
from tests.analysis.study.results import study_result

MACHINE = Machine("A, B", "AVX2", "cpu", "1", "2.15")


def test_every_quantity_of_every_run_is_there_with_all_digits_and_its_machine() -> None:
    result = study_result({"plain": {0: 100 / 3, 1: None}, 'a,"b"': {0: 91.0}}, [], machine=MACHINE)
    rows = list(csv.DictReader(io.StringIO(runs_csv(result), newline="")))
    assert [(row["arm"], row["seed"]) for row in rows] == [("plain", "0"), ("plain", "1"), ('a,"b"', "0")]
    for row, run in zip(rows, result.runs, strict=True):
        assert (row["processor"], row["instructions"], row["torch"]) == ("A, B", "AVX2", "2.15")
        for quantity in QUANTITIES:
            value = value_of(run, quantity.key)
            assert row[quantity.key] == ("" if value is None else repr(value))
    assert rows[0]["checkpoint_sha256"] == "0" * 64 and rows[0]["train_top1"] == "99.0"
    assert rows[1]["checkpoint_sha256"] == ""
