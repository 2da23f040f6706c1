"""Numbers of a bundle beside its run's checkpoint, by the commands: a wrong one ends export and verify."""

import hashlib
import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest

from saq_qat.cli.verify import verify
from saq_qat.errors import ArtifactError, GateError
from saq_qat.quant.numerics.layers import quant_layers
from saq_qat.quant.plan.records import NetworkRecords
from saq_qat.train.checkpoint import FormatError, read_checkpoint
from saq_qat.train.restore import restore
from saq_qat_export import run as run_module
from saq_qat_export.graph import onnx_graph
from saq_qat_export.proof.lowered import Lowered, lower_run
from saq_qat_export.proof.prove import ProofSize
from saq_qat_export.run import export_run
from tests.export.onnx_models import Array
from tests.export.proof.numbers import changed
from tests.report.networks import trained_run

SIZE = ProofSize(1, 8)
TARGETS = ("model.onnx", "model.tensorrt.onnx")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wide = ("deploy.thresholds.max_top1_drop=100.0", "deploy.thresholds.max_flip_rate=1.0")
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    return trained_run(folder, *wide, "deploy.targets=[onnxruntime, tensorrt]")


@pytest.fixture(scope="module")
def lowered(run: Path) -> Lowered:
    return lower_run(run, "last")


@pytest.fixture(scope="module")
def bundle(run: Path, lowered: Lowered) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "lower_run", lambda *_, **__: lowered)
        return export_run(run, run / "export", size=SIZE).folder


def off_by_one(values: Array) -> None:
    values.reshape(-1)[0] -= np.sign(values.reshape(-1)[0])


def forged(bundle: Path, folder: Path, model: str, tensor: str) -> Path:
    """The bundle with one number of a graph changed, and the manifest's digest with it."""
    shutil.copytree(bundle, folder)
    content = changed((folder / model).read_bytes(), tensor, off_by_one)
    (folder / model).write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    for record in manifest["models"].values():
        if record["name"] == model:
            record |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


check = partial(verify, checkpoint="last", code_images=1, top1_images=8)


@pytest.mark.parametrize("model", TARGETS)
@pytest.mark.parametrize("tensor", ["fc.weight", "quantizers.relu.scale"])
def test_verify_names_the_one_number_that_was_changed(
    run: Path, bundle: Path, tmp_path: Path, model: str, tensor: str
) -> None:
    with pytest.raises(GateError) as error:
        check(run, bundle=forged(bundle, tmp_path / "forged", model, tensor))
    assert error.value.exit_code == 1
    assert f"{model}: 1 of " in str(error.value) or f"{model}: 2 of " in str(error.value)
    assert f"({tensor}" in str(error.value) and "by the checkpoint" in str(error.value)


def test_verify_proves_a_bundle_that_another_version_wrote(
    run: Path, bundle: Path, lowered: Lowered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saq_qat_export.proof.lowered.lower_run", lambda *_, **__: lowered)
    other = tmp_path / "other"
    shutil.copytree(bundle, other)
    manifest = json.loads((other / "manifest.json").read_text())
    for target, record in manifest["models"].items():
        model = onnx.load(other / record["name"])
        model.producer_version, model.doc_string = "0.0.1", "written last year"
        content = model.SerializeToString()
        (other / record["name"]).write_bytes(content)
        record |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        manifest["sizes"]["file_bytes"][target] = len(content)
    (other / "manifest.json").write_text(json.dumps(manifest))
    check(run, bundle=other)
    proof = json.loads((run / "report" / "verify.json").read_text())
    names = [
        comparison["name"]
        for comparison in proof["comparisons"]
        if comparison["passed"] and comparison["hard"]
    ]
    assert "numbers of the graph for onnxruntime = checkpoint" in names
    assert "numbers of the graph for tensorrt = checkpoint" in names


def test_export_writes_nothing_if_one_number_is_wrong(
    run: Path, lowered: Lowered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = changed(lowered.graph.content, "fc.bias", off_by_one)
    wrong = Lowered(**vars(lowered) | {"graph": onnx_graph.OnnxGraph(content, lowered.graph.code_tensors)})
    monkeypatch.setattr(run_module, "lower_run", lambda *_, **__: wrong)
    with pytest.raises(
        GateError, match=r"numbers of the graph for onnxruntime = checkpoint \(first at bias of fc"
    ):
        export_run(run, tmp_path / "bundle", size=SIZE)
    assert not (tmp_path / "bundle").exists()


def test_the_checkpoint_holds_records_with_numbers(run: Path) -> None:
    records = read_checkpoint(run / "checkpoints" / "last").records
    assert isinstance(records, NetworkRecords)
    names = [quantizer.name for quantizer in records.quantizers]
    assert names[0] == "image" and len(records.layers) == 3
    assert all(quantizer.scale and quantizer.clip_level for quantizer in records.quantizers)
    assert all(layer.weight.scale for layer in records.layers)
    assert records.layers[0].batch_norm is not None and records.layers[0].mean is not None


def test_a_network_that_would_be_planned_otherwise_today_is_refused_with_both(
    run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "run")
    resolved = tmp_path / "run" / "resolved.yaml"
    resolved.write_text(resolved.read_text().replace("bits: 4", "bits: 3"))
    with pytest.raises(ArtifactError) as error:
        restore(tmp_path / "run")
    assert "layers[conv2].weight.bits: 4 in the checkpoint, 3 today" in str(error.value)
    assert "quantizers[relu_4bit]: in the checkpoint, absent today" in str(error.value)


def test_a_checkpoint_without_records_is_refused_in_words(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    state = tmp_path / "run" / "checkpoints" / "last" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"format": 1}))
    with pytest.raises(FormatError, match="does not record all that was trained"):
        restore(tmp_path / "run")


def test_a_restored_network_uses_the_statistics_it_was_trained_with(run: Path) -> None:
    restored = restore(run)
    records = read_checkpoint(restored.checkpoint).records
    assert records is not None
    layers = quant_layers(restored.network)
    for record in records.layers:
        layers[record.name].weight.data += 1.0
        if record.mean is not None:
            assert float(layers[record.name].weight_statistics()[0]) == record.mean
