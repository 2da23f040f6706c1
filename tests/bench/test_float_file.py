"""The float32 file of a run: of a float run the network itself, of a quantized one without its quantizers."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from saq_qat.bench.engines import FloatNetwork, float_network
from saq_qat.bench.float_file import export_float
from saq_qat.cli.export import export
from saq_qat.data.batches import val_batches
from saq_qat.errors import ArtifactError, GateError, RecipeError
from saq_qat.train.restore import Restored, restore
from saq_qat.train.run import run_training
from saq_qat_export.graph.onnx_graph import INPUT, OUTPUT, PRODUCER
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend
from tests.train.small_recipe import small_recipe


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "quantized"
    return run_training(small_recipe("train.stages=[]"), folder).folder


def test_the_file_of_a_float_run_is_its_network(tmp_path: Path) -> None:
    stages = "train.stages=[{kind: float, epochs: 1, lr: 0.1}]"
    run_training(small_recipe("quant=null", stages), tmp_path / "run")
    found = export_float(tmp_path / "run", tmp_path / "float.onnx")
    restored = restore(tmp_path / "run", "best")
    ((images, labels),) = val_batches(restored.images, batch_size=8)
    with torch.no_grad():
        expected = restored.network(images).numpy()
    logits = OnnxRuntimeBackend(found.path.read_bytes()).run({INPUT: images.numpy()})[OUTPUT]
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert found.top1 == 100 * (logits.argmax(1) == labels.numpy()).mean()
    assert (found.images, found.network) == (8, "as trained, in full precision")


def test_the_file_of_a_quantized_run_has_no_quantizer(
    quantized: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(quantized, float32=True, output=tmp_path / "float.onnx", checkpoint=None, top1_images=0)
    assert "float32: the run's weights without quantizers; top-1" in capsys.readouterr().out
    content = (tmp_path / "float.onnx").read_bytes()
    assert b"QuantizeLinear" not in content
    assert OnnxRuntimeBackend(content).integer_count().integer == 0


def test_a_file_that_computes_otherwise_is_not_written(
    quantized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_moved_weights(restored: Restored) -> FloatNetwork:
        found = float_network(restored)
        with torch.no_grad():
            next(found.network.parameters()).mul_(1.1)
        return found

    monkeypatch.setattr("saq_qat.bench.float_file.float_network", with_moved_weights)
    with pytest.raises(GateError, match="must give the same logits"):
        export_float(quantized, tmp_path / "float.onnx")
    assert not (tmp_path / "float.onnx").exists()


@pytest.mark.parametrize("of_others", [b"mine", b"", None])
def test_a_file_of_the_users_is_not_replaced(
    quantized: Path, tmp_path: Path, of_others: bytes | None
) -> None:
    path = tmp_path / "float.onnx"
    if of_others is None:  # a graph, by another producer
        onnx.save(helper.make_model(helper.make_graph([], "g", [], []), producer_name="pytorch"), path)
    else:
        path.write_bytes(of_others)
    before = path.read_bytes()
    with pytest.raises(ArtifactError, match=r"float\.onnx.*so it is yours\. Move it"):
        export_float(quantized, path)
    assert path.read_bytes() == before


def test_a_graph_of_integers_is_not_replaced_and_an_earlier_float_graph_is(
    quantized: Path, tmp_path: Path
) -> None:
    path = tmp_path / "float.onnx"
    integers = helper.make_node("DequantizeLinear", ["codes", "scale"], ["values"])
    ours = helper.make_graph([integers], "saq_qat", [], [])
    onnx.save(helper.make_model(ours, producer_name=PRODUCER), path)
    with pytest.raises(ArtifactError, match="yours"):
        export_float(quantized, path)
    path.unlink()
    first = export_float(quantized, path)
    content = path.read_bytes()
    assert export_float(quantized, path) == first and path.read_bytes() == content


def test_an_engine_of_integers_is_no_float_file(quantized: Path) -> None:
    with pytest.raises(RecipeError, match="--float writes a float32 graph alone"):
        export(quantized, float32=True, trt=True)
