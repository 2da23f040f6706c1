"""Two distributions of one checkout: what the runtime asks for is what the whole asks for."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def project(file: str) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / file).read_text(encoding="utf-8"))["project"]
    return found


WHOLE, RUNTIME = project("pyproject.toml"), project("runtime/pyproject.toml")


def test_the_runtime_depends_on_three_packages_in_the_versions_of_the_whole() -> None:
    names = [text.split(">=")[0] for text in RUNTIME["dependencies"]]
    assert names == ["numpy", "onnxruntime", "pillow"]
    assert set(RUNTIME["dependencies"]) <= set(WHOLE["dependencies"])


def test_the_whole_brings_the_runtime() -> None:
    (own,) = (text for text in WHOLE["dependencies"] if text.startswith("saq-qat-runtime "))
    assert own == "saq-qat-runtime {env:SAQ_QAT_RUNTIME:@ {root:uri}/runtime}"


@pytest.mark.parametrize("extra", sorted(RUNTIME["optional-dependencies"]))
def test_an_extra_of_the_runtime_is_that_of_the_whole(extra: str) -> None:
    assert WHOLE["optional-dependencies"][extra] == RUNTIME["optional-dependencies"][extra]


def test_both_are_for_the_same_pythons_under_the_same_licence() -> None:
    for key in ("requires-python", "license"):
        assert WHOLE[key] == RUNTIME[key]
