"""``import saq_qat`` costs nothing, and every name it offers is there, typed and documented."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import saq_qat as sq
from saq_qat.errors import RecipeError

ROOT = Path(__file__).parents[2]


def run(program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)


def test_the_import_loads_nothing_heavy() -> None:
    done = run(
        "import sys; import saq_qat; dir(saq_qat); saq_qat.__version__\n"
        "heavy = {'torch', 'numpy', 'onnx', 'onnxruntime', 'pydantic', 'ruamel', 'typer', 'rich', 'PIL'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_every_name_is_there_and_says_what_it_does() -> None:
    for name in sq.__all__:
        assert name in dir(sq)
        assert name == "__version__" or (getattr(sq, name).__doc__ or "").strip()


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(sq, "quantise")


def test_train_can_be_called_before_its_room_was_imported() -> None:
    done = run("import saq_qat\ntry: saq_qat.train('nowhere.yaml')\nexcept Exception as e: print(e)")
    assert "nowhere.yaml: no such recipe" in done.stdout, done.stderr


def test_train_can_be_called_after_its_room_was_imported() -> None:
    room = import_module("saq_qat.train.run")
    with pytest.raises(RecipeError, match=r"nowhere\.yaml: no such recipe"):
        sq.train("nowhere.yaml")
    assert sys.modules["saq_qat.train.run"] is room
