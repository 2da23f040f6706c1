from dataclasses import replace

from saq_qat.report.evaluation import Evaluation
from saq_qat.report.evaluation_text import evaluation_lines
from saq_qat.report.per_class import ClassAccuracy, Confusion
from saq_qat.train.evaluate import Accuracy

HOSTILE = "a very long \x1b[31mname\nof a class that goes on and on"


def evaluation(count: int) -> Evaluation:
    found = Accuracy(71.0, 95.0, 0.5, 40)
    classes = tuple(ClassAccuracy(f"{index} {HOSTILE}", 4, 50.0, float(index)) for index in range(count))
    confusions = tuple(Confusion(HOSTILE, HOSTILE, 123456, 123456) for _ in range(20))
    about = (2, "2026-01-01", "0" * 64, None, "best", 8, "quantized")
    return Evaluation(*about, found, found, classes, confusions, "0" * 64)  # type: ignore[arg-type]  # a tuple of several types


def test_lines_are_few_and_fit_eighty_columns_whatever_the_classes() -> None:
    lines = list(evaluation_lines(evaluation(1000)))
    assert len(lines) <= 24
    assert all(len(line) <= 80 and line.isprintable() for line in lines)
    assert "top-1 % of the lowest 10 of 1000 classes" in lines


def test_the_classes_that_ship_worst_come_first() -> None:
    own = evaluation(3)
    lines = list(evaluation_lines(replace(own, classes=own.classes[::-1])))
    start = lines.index("top-1 % of each class")
    assert [line.split()[0] for line in lines[start + 2 : start + 5]] == ["0", "1", "2"]


def test_a_float_network_has_no_column_of_a_deploy_view() -> None:
    own = replace(evaluation(3), form="float", deployed=None)
    text = "\n".join(evaluation_lines(own))
    assert "deploy" not in text and "fake" not in text
