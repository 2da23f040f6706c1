"""The commands of runtime/README.md do what it says, on a bundle and images as `export` writes them."""

import re
import shlex
from pathlib import Path

import pytest

from saq_qat_export.proof.prove import ProofSize
from saq_qat_export.run import export_run
from tests.cli.conftest import SaqQat, saq_qat
from tests.report.conftest import exported
from tests.runtime.cli.conftest import SaqQatRuntime, saq_qat_runtime

__all__ = ["exported", "saq_qat", "saq_qat_runtime"]

README = (Path(__file__).parents[2] / "runtime" / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^saq-qat-runtime .*$", README, flags=re.MULTILINE)
QUICK = ["--seconds", "0.05"]


@pytest.fixture
def copied(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `export` and `images`, in which commands run."""
    size = ProofSize(4, 40)
    export_run(exported, tmp_path / "export", size=size, images=tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_verb_is_shown() -> None:
    verbs = [command.split()[1] for command in COMMANDS]
    assert verbs == ["info", "self-test", "build", "verify", "bench", "serve"]


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.split()[1] not in ("build", "serve")])
def test_a_command_does_what_it_says(
    copied: Path, saq_qat_runtime: SaqQatRuntime, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    arguments = shlex.split(command, comments=True)[1:]
    measures = arguments[0] == "bench" or "--bench" in arguments
    assert saq_qat_runtime(*arguments, *(QUICK if measures else [])) == 0
    assert capsys.readouterr().out


def test_building_is_refused_for_what_the_bundle_lacks_and_not_for_how_it_is_asked(
    copied: Path, saq_qat_runtime: SaqQatRuntime
) -> None:
    (command,) = (c for c in COMMANDS if c.split()[1] == "build")
    assert saq_qat_runtime(*shlex.split(command, comments=True)[1:]) == 3


def test_export_writes_the_images_that_verify_reads(exported: Path, saq_qat: SaqQat, tmp_path: Path) -> None:
    (command,) = re.findall(r"^saq-qat export .*$", README, flags=re.MULTILINE)
    _, verb, option, folder = shlex.split(command, comments=True)
    places = [option, str(tmp_path / folder), "--output", str(tmp_path / "export")]
    assert saq_qat(verb, str(exported), *places, "--code-images", "2") == 0
    expected = (tmp_path / "export" / "expected.csv").read_text().splitlines()
    assert len(list((tmp_path / folder).iterdir())) == len(expected) - 1 == 40
