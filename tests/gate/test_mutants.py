"""Whatever goes wrong between checkpoint and bundle: export refuses, says where, and writes nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from saq_qat.cli.main import main
from saq_qat.errors import SaqError
from saq_qat_export.run import export_run
from tests.gate import adversarial, bundles, datasets, files, openvino_files, tensorrt_files, trained, views
from tests.gate.harness import SIZE, Mutant, Trained, injected

MUTANTS = (
    *trained.MUTANTS,
    *views.MUTANTS,
    *files.MUTANTS,
    *openvino_files.MUTANTS,
    *tensorrt_files.MUTANTS,
    *bundles.MUTANTS,
    *adversarial.MUTANTS,
    *datasets.MUTANTS,
)
ON_THE_COMMAND_LINE = [
    next(mutant for mutant in MUTANTS if mutant.place == place and mutant.network == "cnn")
    for place in ("training", "arithmetic", "view", "onnxruntime", "tensorrt", "bundle")
]


def label(mutant: Mutant) -> str:
    return f"{mutant.network}-{mutant.place}-{mutant.name}"


@pytest.mark.parametrize("mutant", MUTANTS, ids=label)
def test_a_mutant_is_refused_by_name(
    mutant: Mutant, trained_of: Callable[[str], Trained], tmp_path: Path
) -> None:
    found = trained_of(mutant.network)
    with injected(mutant, found), pytest.raises(SaqError, match=mutant.named):
        export_run(found.run, tmp_path / "bundle", size=SIZE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mutant", ON_THE_COMMAND_LINE, ids=label)
def test_the_command_exits_with_1_and_writes_nothing(
    mutant: Mutant,
    trained_of: Callable[[str], Trained],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, folder = trained_of(mutant.network), tmp_path / "bundle"
    command = ["saq-qat", "export", str(found.run), "--output", str(folder), "--code-images", "2"]
    monkeypatch.setattr("sys.argv", [*command, "--top1-images", "4"])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with injected(mutant, found), pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    assert not folder.exists()


def test_every_row_of_the_table_has_a_name_of_its_own() -> None:
    rows = [label(mutant) for mutant in MUTANTS]
    assert len(set(rows)) == len(rows) >= 60
