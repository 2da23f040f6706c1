"""`saq-qat serve` finds the bundle of a run and leaves everything else to the runtime's command."""

import argparse
from pathlib import Path

import pytest
from typer.testing import CliRunner

from saq_qat.cli.main import app
from saq_qat.errors import ArtifactError

RUN = "20260101-000000-abcd"


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[argparse.Namespace]:
    """What would be served; in a folder with one run."""
    seen: list[argparse.Namespace] = []

    def run(arguments: argparse.Namespace) -> int:
        seen.append(arguments)
        return 0

    monkeypatch.setattr("saq_qat_runtime.serve.command.run", run)
    run_folder = tmp_path / "runs" / "digits" / RUN
    (run_folder / "export").mkdir(parents=True)
    (run_folder / "resolved.yaml").write_text("version: 1\n")
    (tmp_path / "models" / "a" / "1").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return seen


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        ([], f"runs/digits/{RUN}/export"),
        ([f"runs/digits/{RUN}"], f"runs/digits/{RUN}/export"),
        (["runs/digits"], f"runs/digits/{RUN}/export"),
        ([f"runs/digits/{RUN}/export"], f"runs/digits/{RUN}/export"),
        (["models"], "models"),
        (["missing"], "missing"),
    ],
)
def test_a_run_its_recipe_a_bundle_or_a_folder_of_models(
    served: list[argparse.Namespace], given: list[str], folder: str
) -> None:
    result = CliRunner().invoke(app, ["serve", *given, "--port", "9000"])
    assert result.exit_code == 0, result.output
    (arguments,) = served
    assert arguments.bundle.resolve() == Path(folder).resolve()
    assert arguments.port == 9000


def test_without_a_run_it_says_so(served: list[argparse.Namespace], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("models")
    result = CliRunner().invoke(app, ["serve"])
    assert isinstance(result.exception, ArtifactError)
    assert served == []


def test_help_lists_the_options_of_the_runtime(capfd: pytest.CaptureFixture[str]) -> None:
    result = CliRunner().invoke(app, ["serve", "--help"])
    assert result.exit_code == 0
    assert "--batch-delay-ms" in result.output + capfd.readouterr().out


def test_an_option_that_does_not_exist_is_a_usage_error() -> None:
    assert CliRunner().invoke(app, ["serve", "--no-such-option"]).exit_code == 2
