"""A bundle becomes models that Triton's own definition of a configuration accepts."""

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import text_format

from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.bundle.records import CpuRecord
from saq_qat_runtime.errors import InputError, ModelError, ResultError
from saq_qat_runtime.tensorrt.engine_record import record_name
from saq_qat_runtime.triton.repository import triton_models, write_triton
from tests.runtime.bundles import file_record
from tests.runtime.fake_tensorrt import PLAN, record_of
from tests.runtime.networks import LABELS, SIDE, images
from tests.runtime.workshop import TENSORRT_MODEL, Workshop


@pytest.fixture(scope="module")
def definition() -> Any:
    """model_config.proto as tritonclient ships it; its package for gRPC cannot be imported without grpcio."""
    found = importlib.util.find_spec("tritonclient")
    assert found is not None
    assert found.submodule_search_locations is not None
    path = Path(found.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("triton_model_config_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parsed(definition: Any, model: Path) -> Any:
    """The configuration, where an unknown field or a wrong type is an error."""
    return text_format.Parse((model / "config.pbtxt").read_text(), definition.ModelConfig())


def add_engine(workshop: Workshop, **changes: Any) -> None:
    source = file_record(workshop.folder / TENSORRT_MODEL)
    (workshop.folder / "model.plan").write_bytes(PLAN)
    (workshop.folder / record_name("model.plan")).write_text(record_of(source=source, **changes).to_json())


def test_the_configuration_is_legal_and_says_what_the_bundle_says(
    bundle: Path, tmp_path: Path, definition: Any
) -> None:
    repository = tmp_path / "models"
    (version,) = write_triton(bundle, repository)
    assert version == repository / "tiny" / "1"
    config = parsed(definition, repository / "tiny")
    assert (config.name, config.platform, config.max_batch_size) == ("tiny", "onnxruntime_onnx", 32)
    (given,), (gives,) = config.input, config.output
    assert (given.name, list(given.dims)) == ("image", [3, SIDE, SIDE])
    assert (gives.name, list(gives.dims), gives.label_filename) == ("logits", [LABELS], "labels.txt")
    assert given.data_type == gives.data_type == definition.TYPE_FP32
    assert config.dynamic_batching.max_queue_delay_microseconds == 1000
    assert [group.kind for group in config.instance_group] == [definition.ModelInstanceGroup.KIND_CPU]


def test_warm_up_covers_both_ends_of_the_batch_with_a_golden_image(
    bundle: Path, tmp_path: Path, definition: Any
) -> None:
    write_triton(bundle, tmp_path)
    config = parsed(definition, tmp_path / "tiny")
    assert [warm.batch_size for warm in config.model_warmup] == [1, 32]
    for warm in config.model_warmup:
        values = warm.inputs["image"]
        file = tmp_path / "tiny" / "warmup" / values.input_data_file
        np.testing.assert_array_equal(
            np.frombuffer(file.read_bytes(), "<f4").reshape(values.dims), images(4)[0]
        )


def test_labels_stand_beside_the_model(bundle: Path, tmp_path: Path) -> None:
    write_triton(bundle, tmp_path)
    assert (tmp_path / "tiny" / "labels.txt").read_text().splitlines() == ["ant", "bee", "cat", "dog", "elk"]


def test_the_model_is_the_bundles_byte_for_byte(bundle: Path, tmp_path: Path) -> None:
    (version,) = write_triton(bundle, tmp_path, "renamed")
    assert version == tmp_path / "renamed" / "1"
    assert (version / "model.onnx").read_bytes() == (bundle / "model.onnx").read_bytes()


def test_the_same_model_adds_no_version_and_another_adds_the_next(
    bundle: Path, tmp_path: Path, replace_model: Callable[[bytes], None]
) -> None:
    assert write_triton(bundle, tmp_path) == write_triton(bundle, tmp_path) == (tmp_path / "tiny" / "1",)
    replace_model(b"another graph")
    assert write_triton(bundle, tmp_path) == (tmp_path / "tiny" / "2",)
    assert (tmp_path / "tiny" / "1" / "model.onnx").read_bytes() != b"another graph"
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir() if path.is_dir()) == [
        "1",
        "2",
        "warmup",
    ]


def test_what_a_killed_export_left_does_not_become_a_version(bundle: Path, tmp_path: Path) -> None:
    half = tmp_path / "tiny" / ".partial"
    half.mkdir(parents=True)
    (half / "junk").write_bytes(b"half a model")
    (version,) = write_triton(bundle, tmp_path)
    assert [file.name for file in version.iterdir()] == ["model.onnx"]
    assert not half.exists()


def test_an_engine_becomes_a_second_model_with_its_own_largest_batch(
    workshop: Workshop, tmp_path: Path, definition: Any
) -> None:
    add_engine(workshop)
    graph, engine = write_triton(workshop.folder, tmp_path)
    assert (graph, engine) == (tmp_path / "tiny" / "1", tmp_path / "tiny-tensorrt" / "1")
    assert (engine / "model.plan").read_bytes() == PLAN
    config = parsed(definition, tmp_path / "tiny-tensorrt")
    assert (config.platform, config.max_batch_size) == ("tensorrt_plan", 8)
    assert [group.kind for group in config.instance_group] == [definition.ModelInstanceGroup.KIND_GPU]
    remark = (tmp_path / "tiny-tensorrt" / "config.pbtxt").read_text().splitlines()[0]
    assert "TensorRT 10.16.1.11 on NVIDIA H100" in remark


def test_an_engine_of_one_batch_is_served_without_batching(
    workshop: Workshop, tmp_path: Path, definition: Any
) -> None:
    fixed = record_of()
    add_engine(
        workshop,
        profiles=(),
        inputs=tuple(dataclasses.replace(spec, shape=(2, *spec.shape[1:])) for spec in fixed.inputs),
        outputs=tuple(dataclasses.replace(spec, shape=(2, *spec.shape[1:])) for spec in fixed.outputs),
    )
    write_triton(workshop.folder, tmp_path)
    config = parsed(definition, tmp_path / "tiny-tensorrt")
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert list(config.input[0].dims) == [2, 3, SIDE, SIDE]
    warm_up = (tmp_path / "tiny-tensorrt" / "warmup" / "image").read_bytes()
    assert len(warm_up) == 4 * 2 * 3 * SIDE * SIDE


def test_an_engine_of_another_graph_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    add_engine(workshop)
    record = record_of()  # of a graph that this bundle does not hold
    (workshop.folder / record_name("model.plan")).write_text(record.to_json())
    with pytest.raises(ModelError, match=r"model\.tensorrt\.onnx"):
        write_triton(workshop.folder, tmp_path)


def test_a_bundle_over_the_pair_bound_says_on_which_cpus_it_is_right(
    bundle: Path, change_manifest: Callable[..., None]
) -> None:
    change_manifest(cpu=CpuRecord("vnni", ("conv1",), "half of the codes differ"))
    (model,) = triton_models(bundle, Manifest.load(bundle))
    assert "needs a CPU with VNNI for 1 of its products" in model.remark


def test_an_unproved_bundle_is_refused_unless_it_is_asked_for(
    bundle: Path, tmp_path: Path, change_manifest: Callable[..., None]
) -> None:
    change_manifest(gate=dataclasses.replace(Manifest.load(bundle).gate, passed=False, comparisons=()))
    with pytest.raises(ModelError, match="failed the proof"):
        write_triton(bundle, tmp_path)
    assert write_triton(bundle, tmp_path, allow_failed_gate=True)


def test_a_bundle_for_openvino_alone_says_what_triton_runs(
    bundle: Path, tmp_path: Path, change_manifest: Callable[..., None]
) -> None:
    manifest = Manifest.load(bundle)
    golden = dataclasses.replace(manifest.golden, logits_tolerance={"openvino": 0.0})
    change_manifest(models={"openvino": manifest.models["onnxruntime"]}, golden=golden)
    with pytest.raises(ModelError, match=r"Add onnxruntime to deploy\.targets"):
        write_triton(bundle, tmp_path)


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "x" * 129, "a b"])
def test_a_name_that_is_no_folder_is_refused(bundle: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot name a model's folder"):
        write_triton(bundle, tmp_path, name)


def test_quotes_and_line_breaks_in_names_stay_within_their_strings(
    bundle: Path, tmp_path: Path, change_manifest: Callable[..., None], definition: Any
) -> None:
    manifest = Manifest.load(bundle)
    wild = 'a "b" \\ \n } ü'
    outputs = (dataclasses.replace(manifest.outputs[0], name=wild),)
    change_manifest(outputs=outputs, labels=("ant\nbee", "b", "c", "d", "e"))
    write_triton(bundle, tmp_path)
    assert parsed(definition, tmp_path / "tiny").output[0].name == wild
    assert (tmp_path / "tiny" / "labels.txt").read_text().splitlines() == ["ant bee", "b", "c", "d", "e"]


def test_a_repository_that_cannot_be_written_is_a_sentence(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file stands where the folder should be")
    with pytest.raises(ResultError, match="cannot be written"):
        write_triton(bundle, tmp_path / "models")


@pytest.mark.parametrize("name", ["config.pbtxt", "preprocessing.json", "labels.txt", "saq-qat.json"])
def test_a_file_of_the_users_is_not_replaced(bundle: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / name).write_text("mine")
    with pytest.raises(ResultError, match=rf"{name}: .*so it is yours\. Move it"):
        write_triton(bundle, tmp_path)
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == [name]
    assert (tmp_path / "tiny" / name).read_text() == "mine"


def test_a_configuration_is_replaced_as_it_was_written_and_kept_once_changed(
    bundle: Path, tmp_path: Path, replace_model: Callable[[bytes], None], change_manifest: Callable[..., None]
) -> None:
    config, labels = tmp_path / "tiny" / "config.pbtxt", tmp_path / "tiny" / "labels.txt"
    write_triton(bundle, tmp_path)
    change_manifest(
        labels=("a", "b", "c", "d", "e"), cpu=CpuRecord("vnni", ("conv1",), "half of them differ")
    )
    write_triton(bundle, tmp_path)
    assert labels.read_text() == "a\nb\nc\nd\ne\n" and "VNNI" in config.read_text()
    config.write_text(config.read_text().replace("count: 1", "count: 4"))
    replace_model(b"another graph")
    with pytest.raises(ResultError, match=r"config\.pbtxt"):
        write_triton(bundle, tmp_path)
    assert "count: 4" in config.read_text() and not (tmp_path / "tiny" / "2").exists()
