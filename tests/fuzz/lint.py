"""Harmed ONNX files and the rules of TensorRT (`saq-qat check FILE.onnx`): findings or an ArtifactError."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from saq_qat.errors import ArtifactError
from saq_qat_export.lint.linter import lint_file
from tests.fuzz.models import harmed_model
from tests.fuzz.surface import Case, Surface

__all__ = ["SURFACE"]


@contextmanager
def _opened(folder: Path) -> Iterator[Case]:
    path = folder / "input.onnx"

    def case(random: Random) -> str:
        path.write_bytes(harmed_model(random))
        try:
            findings = lint_file(path)
        except ArtifactError as error:
            assert str(error).strip()
            return "refused"
        return "findings" if findings else "no finding"

    yield case


SURFACE = Surface("lint", _opened, mebibytes=900)
