"""`saq-qat analyze` on small runs, as a user would call it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from saq_qat.recipe.load import parse_recipe
from saq_qat.train.choose import choose_checkpoint
from saq_qat.train.run import run_training
from tests.cli.conftest import SaqQat

RECIPE = """
version: 1
name: small
model: {name: "tests.train.small_network:SmallNetwork"}
data: {kind: digits, image_size: 8, train_limit: 64, val_limit: 20}
quant: {weight: {bits: 4}, activation: {bits: 4}, calibration_batches: 1}
train:
  batch_size: 16
  compile: "off"
  optimizer: {kind: sgd}
  stages:
    - {kind: quantized, epochs: 1, lr: 0.05, method: {kind: saq, rho: 0.3}}
"""
QUICK = ("--images", "32", "--count", "2", "--probes", "3", "--points", "5")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("runs")
    for name, rho in (("a", "0.3"), ("b", "0.6")):
        recipe = parse_recipe(RECIPE, "small", (f"train.stages.0.method.rho={rho}", f"name={name}"))
        run_training(recipe, root / name)
    return root / "a", root / "b"


def found(run: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((run / "analysis" / "analysis.json").read_text())
    return value


def test_curvature_is_written_with_the_digest_of_its_checkpoint(
    runs: tuple[Path, Path], saq_qat: SaqQat, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs[0]
    assert saq_qat("analyze", str(run), "--what", "eigenvalues", *QUICK) == 0
    first = found(run)
    assert first["checkpoint_sha256"] == choose_checkpoint(run).taken.sha256
    assert len(first["eigenvalues"]) == 2 and first["eigenvalues"][0] >= first["eigenvalues"][1]
    assert first["lanczos"]["converged"] and first["lanczos"]["conditions"]["images"] == 32
    assert first["trace"] is None
    assert f"{first['eigenvalues'][0]:.4g}" in capsys.readouterr().out

    assert saq_qat("analyze", str(run), "--what", "trace", *QUICK) == 0
    second = found(run)
    assert second["eigenvalues"] == first["eigenvalues"], "what was known of this checkpoint stays"
    assert second["hutchinson"]["probes"] == 3 and second["trace_standard_error"] > 0


def test_with_json_one_document_tells_what_was_measured_and_drawn(
    runs: tuple[Path, Path], saq_qat: SaqQat, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    what = ("--what", "eigenvalues,rho", "--checkpoint", "last", "--out", str(tmp_path))
    assert saq_qat("analyze", *map(str, runs), *what, *QUICK, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [run.pop("run") for run in told["runs"]] == [str(run) for run in runs]
    assert told["runs"] == [found(run) for run in runs]
    assert str(tmp_path / "rho.svg") in told["written"]
    points = json.loads((tmp_path / "rho.json").read_text())["runs"]
    assert [point["checkpoint"] for point in points] == ["last", "last"]


def test_what_is_known_of_another_checkpoint_goes(runs: tuple[Path, Path], saq_qat: SaqQat) -> None:
    run = runs[1]
    assert saq_qat("analyze", str(run), "--what", "eigenvalues", *QUICK) == 0
    file = run / "analysis" / "analysis.json"
    file.write_text(json.dumps({**found(run), "checkpoint_sha256": "0" * 64}))
    assert saq_qat("analyze", str(run), "--what", "trace", *QUICK) == 0
    assert found(run)["eigenvalues"] is None and found(run)["trace"] is not None


@pytest.mark.parametrize("text", ["{", '{"schema_version": 99}', '{"schema_version": 1}'])
def test_an_analysis_that_cannot_be_read_is_kept_and_told(
    runs: tuple[Path, Path], saq_qat: SaqQat, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str
) -> None:
    run = shutil.copytree(runs[1], tmp_path / "run")
    file = run / "analysis" / "analysis.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    assert saq_qat("analyze", str(run), "--what", "trace", *QUICK) == 3
    assert file.read_text() == text
    told = " ".join(capsys.readouterr().err.split())
    assert "analysis.json" in told and "Move it out" in told


def test_runs_are_compared_in_one_picture_each(
    runs: tuple[Path, Path], saq_qat: SaqQat, tmp_path: Path
) -> None:
    names = ("landscape", "plane", "training", "rho")
    options = ("--what", ",".join(names), "--out", str(tmp_path), "--images", "16", "--points", "3")
    assert saq_qat("analyze", *map(str, runs), *options) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"{name}.{suffix}" for name in names for suffix in ("json", "svg", "png")
    )
    for name in names:
        shown = json.loads((tmp_path / f"{name}.json").read_text())["runs"]
        digests = [choose_checkpoint(run).taken.sha256 for run in runs]
        assert [each["checkpoint_sha256"] for each in shown] == digests
    plane = json.loads((tmp_path / "plane.json").read_text())["runs"][0]
    line = json.loads((tmp_path / "landscape.json").read_text())["runs"][0]
    assert plane["losses"][1] == line["losses"], "the first direction of a plane is that of the line"
    assert line["losses"][1] == line["conditions"]["loss"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--what", "sharpness"), 2, "--what takes names from eigenvalues, trace"),
        (("--what", ","), 2, "--what takes names"),
        (("--what", "landscape", "--points", "4"), 2, "odd number"),
        (("--what", "eigenvalues", "--count", "999999"), 2, "asked for 999999"),
        (("--what", "trace", "--probes", "1"), 2, "needs two probes"),
        (("--what", "landscape", "--points", "1000000001"), 2, "--points"),
        (("--what", "landscape", "--reach", "inf"), 2, "--reach"),
    ],
)
def test_mistakes_are_told_with_the_exit_code_of_their_kind(
    runs: tuple[Path, Path],
    saq_qat: SaqQat,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    assert saq_qat("analyze", str(runs[0]), *arguments, "--images", "8") == code
    assert message in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(saq_qat: SaqQat, tmp_path: Path) -> None:
    assert saq_qat("analyze", str(tmp_path)) == 3
