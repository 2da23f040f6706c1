"""Commands and claims of the documents beside the paper's recipes."""

import re
import sys
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from saq_qat.analysis.study.schema import load_study
from saq_qat.cli.main import app
from tests.docs import study_cost
from tests.docs.paper_tables import CONFIGS, IMAGENET, TRANSFER, commands, rows

COMMANDS = [words for document in (IMAGENET, TRANSFER) for words in commands(document)]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_is_one_that_the_command_line_takes(words: list[str]) -> None:
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    verb, *arguments = words
    with group.commands[verb].make_context(verb, arguments):
        pass


def test_lambda_max_is_measured_as_the_papers_is() -> None:
    """Alone, for `analyze` draws a landscape too; of the converged network, and not of the best one."""
    (words,) = (words for words in COMMANDS if words[0] == "analyze")
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    with group.commands["analyze"].make_context("analyze", words[1:]) as context:
        asked = {key: context.params[key] for key in ("what", "count", "images", "checkpoint")}
        assert context.params["batch_size"] <= 128  # the recipe's 512 are more than a training holds at once
    assert asked == {"what": "eigenvalues", "count": 1, "images": 10_000, "checkpoint": "last"}


@pytest.mark.parametrize(
    "path", sorted((CONFIGS / "studies").glob("*-cases.yaml")), ids=lambda path: path.stem
)
def test_case_3_is_compared_with_every_other_arm(path: Path) -> None:
    study = load_study(path)
    assert {pair.against for pair in study.comparisons if pair.of == "case-3"} == study.arms.keys() - {
        "case-3"
    }


def test_only_4_bits_tell_whether_a_table_had_efficient_training() -> None:
    """Where the paper's ResNet-18 has other numbers in tables 5 and 7 than in table 2, it was another run."""
    main = {row["recipe"]: (row["top-1"], row["top-5"]) for row in rows(IMAGENET, "recipe")}
    arms = {(row["study"], row["arm"]): (row["top-1"], row["top-5"]) for row in rows(IMAGENET, "table")}
    for bits, same in (("w4a4", False), ("w2a2", True)):
        of_5 = arms[f"imagenet-resnet18-{bits}-objectives", "sum"]
        assert of_5 == arms[f"imagenet-resnet18-{bits}-sam", "saq"]
        assert (of_5 == main[f"resnet18-{bits}-saq"]) == same


def test_what_a_study_costs_is_measured_by_the_line_that_stands_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = re.search(r"`python -m tests\.docs\.study_cost (\S+)`", IMAGENET.read_text(encoding="utf-8"))
    assert found is not None and (CONFIGS.parent / found[1]).is_file()
    recipe = str(CONFIGS / "imagenet" / "resnet18-w4a4-saq.yaml")
    small = ["data.image_size=32", "--images", "1", "2"]
    monkeypatch.setattr(sys, "argv", ["study_cost", recipe, *small])
    study_cost.main()
    lines = capsys.readouterr().out.splitlines()
    kinds = ["fake-quant pass", "product of the Hessian"]
    expected = [f"{kind}, batch of {images}" for images in (1, 2) for kind in kinds]
    assert [line.partition(":")[0] for line in lines[:-1]] == expected
    assert "memory" in lines[-1]
