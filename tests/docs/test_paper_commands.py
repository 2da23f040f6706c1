"""Commands and claims of the documents beside the paper's recipes."""

from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from saq_qat.analysis.study.schema import load_study
from saq_qat.cli.main import app
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
