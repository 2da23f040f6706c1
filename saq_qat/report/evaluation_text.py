"""What eval found, as lines of at most eighty columns."""

from collections.abc import Iterator, Sequence

from saq_qat.report.evaluation import Evaluation
from saq_qat.report.per_class import ClassAccuracy
from saq_qat_runtime.report.text import NOT_MEASURED, aligned, percent, shortened

__all__ = ["evaluation_lines"]

_CLASSES, _CONFUSIONS = 10, 5
_NAME_WIDTH = 24


def evaluation_lines(evaluation: Evaluation) -> Iterator[str]:
    """Accuracy of the forms, the classes that are right least often, and the commonest wrong answers."""
    yield from _forms(evaluation)
    if len(evaluation.classes) > 1:
        yield from _classes(evaluation)
    if evaluation.confusions:
        yield from _confusions(evaluation)


def _forms(evaluation: Evaluation) -> list[str]:
    forms = [("float" if evaluation.form == "float" else "fake-quant", evaluation.network)]
    forms += [("deploy view", evaluation.deployed)] if evaluation.deployed is not None else []
    rows = [(name, percent(a.top1), percent(a.top5), f"{a.loss:.4f}", str(a.count)) for name, a in forms]
    return aligned(("network", "top-1 %", "top-5 %", "loss", "images"), rows)


def _classes(evaluation: Evaluation) -> Iterator[str]:
    judged = [each for each in evaluation.classes if each.images]
    worst = sorted(judged, key=_deciding)[:_CLASSES]
    which = "each class" if len(worst) == len(judged) else f"the lowest {len(worst)} of {len(judged)} classes"
    yield from ("", f"top-1 % of {which}")
    rows = [
        (shortened(each.name, _NAME_WIDTH), percent(each.network), percent(each.deployed), str(each.images))
        for each in worst
    ]
    yield from _table(("class", _form(evaluation), "deploy view", "images"), rows, evaluation, deployed=2)


def _confusions(evaluation: Evaluation) -> Iterator[str]:
    yield from ("", "commonest wrong answers, in images")
    rows = [
        (
            shortened(each.label, _NAME_WIDTH),
            shortened(each.answer, _NAME_WIDTH),
            str(each.network),
            NOT_MEASURED if each.deployed is None else str(each.deployed),
        )
        for each in evaluation.confusions[:_CONFUSIONS]
    ]
    header = ("class", "taken for", _form(evaluation), "deploy view")
    yield from _table(header, rows, evaluation, deployed=3, left=(0, 1))


def _table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    evaluation: Evaluation,
    *,
    deployed: int,
    left: tuple[int, ...] = (0,),
) -> list[str]:
    """An aligned table, without the column ``deployed`` where there is no deploy view."""
    lines = [header, *rows]
    if evaluation.deployed is None:
        lines = [(*row[:deployed], *row[deployed + 1 :]) for row in lines]
    return aligned(lines[0], lines[1:], left=left)


def _form(evaluation: Evaluation) -> str:
    return "float" if evaluation.form == "float" else "fake-quant"


def _deciding(each: ClassAccuracy) -> float:
    """Accuracy of what ships: of the deploy view, where there is one."""
    found = each.network if each.deployed is None else each.deployed
    return 0.0 if found is None else found
