"""`saq-qat check` of an ONNX file that nobody vouches for: what its names may do to a terminal."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.export.lint.lint_graphs import Net

SaqQat = Callable[..., int]
HOSTILE = "a\x1b]0;x\x07\x1b[31m\u202e\u2028z\nno errors: "


def _hostile_graph(path: Path, *, lost_input: bool = False) -> Path:
    """Two findings of the rules, a dynamic batch, and every name written by somebody hostile."""
    net = Net()
    image = net.input(("N", 16, 8, 8), name=f"{HOSTILE}image")
    codes = net.quantize(image, zero=net.constant(3, np.int8))
    model = net.model(net.conv(net.dequantize(codes, zero=net.constant(3, np.int8))))
    for node in model.graph.node:
        node.name = HOSTILE + node.name
    if lost_input:
        model.graph.node[0].input[0] = f"{HOSTILE}nowhere"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(("lost_input", "code"), [(False, 2), (True, 3)])
def test_no_name_of_an_untrusted_graph_reaches_the_terminal_as_it_is(
    saq_qat: SaqQat, tmp_path: Path, capsys: pytest.CaptureFixture[str], lost_input: bool, code: int
) -> None:
    file = _hostile_graph(tmp_path / "model.onnx", lost_input=lost_input)
    assert saq_qat("check", str(file)) == code
    shown = capsys.readouterr()
    text = shown.out + shown.err
    assert "a?]0;x??[31m??z" in text
    assert text.replace("\n", "").isprintable()
    assert not any(line.startswith("no errors") for line in shown.out.splitlines())
