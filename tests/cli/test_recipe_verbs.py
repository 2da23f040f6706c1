"""init, show and schema: recipes as text, in and out."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from saq_qat.recipe.json_schema import recipe_json_schema
from saq_qat.recipe.load import load_recipe, parse_recipe
from saq_qat.recipe.templates import template_text, templates

SaqQat = Callable[..., int]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_init_writes_a_recipe_and_its_schema(saq_qat: SaqQat, capsys: pytest.CaptureFixture[str]) -> None:
    assert saq_qat("init") == 0
    assert load_recipe(Path("recipe.yaml")).name == "digits"
    assert json.loads(Path("saq-recipe.schema.json").read_text()) == recipe_json_schema()
    assert "next: saq-qat check recipe.yaml" in capsys.readouterr().out


def test_init_takes_a_template_and_a_path(saq_qat: SaqQat) -> None:
    assert saq_qat("init", "new/mine.yaml", "--template", "cifar10") == 0
    assert Path("new/mine.yaml").read_text() == template_text("cifar10")
    assert Path("new/saq-recipe.schema.json").exists()


def test_init_overwrites_only_when_told(saq_qat: SaqQat, capsys: pytest.CaptureFixture[str]) -> None:
    Path("recipe.yaml").write_text("mine")
    assert saq_qat("init") == 2
    assert "recipe.yaml exists already" in capsys.readouterr().err
    assert Path("recipe.yaml").read_text() == "mine"
    assert saq_qat("init", "--force") == 0
    assert Path("recipe.yaml").read_text() == template_text("digits")


def test_init_lists_the_templates(saq_qat: SaqQat, capsys: pytest.CaptureFixture[str]) -> None:
    assert saq_qat("init", "--list") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == templates()
    assert list(Path().iterdir()) == []


def test_init_with_an_unknown_template_writes_nothing(saq_qat: SaqQat) -> None:
    assert saq_qat("init", "--template", "digit") == 2
    assert list(Path().iterdir()) == []


def test_show_prints_the_resolved_recipe(saq_qat: SaqQat, capsys: pytest.CaptureFixture[str]) -> None:
    Path("r.yaml").write_text(template_text("digits"))
    assert saq_qat("show", "r.yaml", "seed=7", "train.stages.0.lr=0.5") == 0
    shown = parse_recipe(capsys.readouterr().out, "shown")
    assert shown == load_recipe(Path("r.yaml"), ["seed=7", "train.stages.0.lr=0.5"])


def test_show_reports_all_errors_and_exits_with_2(
    saq_qat: SaqQat, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("r.yaml").write_text(template_text("digits").replace("image_size", "image_sise"))
    assert saq_qat("show", "r.yaml", "seed=x") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "r.yaml:16:3: data.image_sise: unknown key; did you mean 'image_size'?",
        "override 'seed=x': seed: must be a whole number (got 'x')",
    ]


def test_schema_prints_json(saq_qat: SaqQat, capsys: pytest.CaptureFixture[str]) -> None:
    assert saq_qat("schema") == 0
    assert json.loads(capsys.readouterr().out) == recipe_json_schema()
