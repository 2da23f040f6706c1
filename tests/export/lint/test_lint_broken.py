"""Whatever file the lint is given, it answers with findings or says what is wrong with the file."""

import os
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saq_qat.errors import ArtifactError
from saq_qat_export.lint import lint, lint_file
from tests.export.lint.lint_cases import CASES
from tests.export.lint.lint_graphs import Net
from tests.export.lint.lint_speed_cases import SPEED_CASES

MODELS = [case(good) for case in (*CASES.values(), *SPEED_CASES.values()) for good in (True, False)]
OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""})
MANY = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def good_model() -> onnx.ModelProto:
    net = Net()
    return net.model(net.conv(net.pair(net.input((1, 16, 8, 8)))))


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def external(folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save_model(
        good_model(), path, save_as_external_data=True, location="weights.bin", size_threshold=100
    )
    return path


def test_a_file_is_judged_like_the_model_in_it(tmp_path: Path) -> None:
    model = CASES["TRT003"](False)
    assert lint_file(saved(model, tmp_path)) == lint(model)


@pytest.mark.parametrize("content", [b"", b"no model at all", b"PK\x03\x04" + bytes(100), bytes(range(256))])
def test_other_files_are_refused_in_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model\.onnx is no ONNX model"):
        lint_file(path)


def test_missing_files_folders_pipes_and_devices_are_refused_in_words(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    for path in (tmp_path / "absent.onnx", tmp_path, tmp_path / "pipe.onnx", Path("/dev/zero")):
        with pytest.raises(ArtifactError, match=r"cannot be read.*Name an ONNX file"):
            lint_file(path)


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = saved(good_model(), tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ArtifactError, match="ONNX model"):
        lint_file(path)


def test_a_loop_without_a_body_is_refused(tmp_path: Path) -> None:
    """Shape inference fails on it with another error than those of its own."""
    net = Net()
    model = net.model(net.node("Loop", net.conv(net.pair(net.input((1, 16, 8, 8))))))
    with pytest.raises(ArtifactError, match=r"shapes cannot be inferred"):
        lint_file(saved(model, tmp_path))


def test_two_small_constants_that_are_terabytes_together_are_not_computed() -> None:
    net = Net()
    net.node("Add", net.constant(np.ones((65536, 1))), net.constant(np.ones((1, 65536))))
    model = net.model(net.conv(net.pair(net.input((1, 16, 8, 8)))))
    began = time.process_time()
    lint(model)
    assert time.process_time() - began < 5


def test_weights_in_another_file_are_read(tmp_path: Path) -> None:
    path = external(tmp_path)
    assert [f.rule for f in lint_file(path)] == ["TRT114", "TRT117"]


def test_weights_in_another_file_must_be_there_and_whole(tmp_path: Path) -> None:
    path = external(tmp_path)
    weights = tmp_path / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"weights\.bin is missing or too short"):
        lint_file(path)
    weights.unlink()
    with pytest.raises(ArtifactError, match=r"weights\.bin is missing or too short"):
        lint_file(path)
    unread = onnx.load_model(path, load_external_data=False)
    assert [f.rule for f in lint(unread)] == ["TRT114", "TRT117"]


def test_weights_outside_the_folder_are_never_opened(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    path = external(inner)
    model = onnx.load_model(path, load_external_data=False)
    (inner / "weights.bin").rename(tmp_path / "weights.bin")
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "../weights.bin" if entry.key == "location" else entry.value
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match="outside the model's folder"):
        lint_file(path)


def test_a_tensor_nobody_writes_is_named() -> None:
    model = good_model()
    model.graph.node[0].input[0] = "missing"
    with pytest.raises(ArtifactError, match="reads tensor missing"):
        lint(model)


def test_a_tensor_written_twice_is_named() -> None:
    model = good_model()
    model.graph.node.append(model.graph.node[-1])
    with pytest.raises(ArtifactError, match=f"writes tensor {model.graph.node[-1].output[0]}"):
        lint(model)


def test_constants_of_another_size_than_they_claim_are_named() -> None:
    model = good_model()
    model.graph.initializer[0].raw_data += b"\0"
    with pytest.raises(ArtifactError, match="holds 5 bytes where its shape and type need 4"):
        lint(model)


def test_numbers_in_the_field_of_another_type_are_unknown_numbers() -> None:
    model = good_model()
    tensor = next(tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT)
    tensor.ClearField("raw_data")
    tensor.int32_data.extend([1] * int(np.prod(tensor.dims)))
    assert [f.rule for f in lint(model)] == ["TRT114"]


def judged(model: onnx.ModelProto) -> None:
    try:
        assert all(finding.where and finding.message for finding in lint(model))
    except ArtifactError as error:
        assert "ONNX model" in str(error)


@MANY
@given(data=st.data())
def test_any_mutation_of_a_graph_is_judged_or_refused(data: st.DataObject) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(data.draw(st.sampled_from(MODELS)))
    for _ in range(data.draw(st.integers(1, 4))):
        mutate(model, data)
    judged(model)


def mutate(model: onnx.ModelProto, data: st.DataObject) -> None:
    graph = model.graph
    names = [value.name for value in (*graph.input, *graph.initializer)]
    node = data.draw(st.sampled_from(list(graph.node))) if graph.node else onnx.NodeProto()
    tensor = data.draw(st.sampled_from(list(graph.initializer))) if graph.initializer else onnx.TensorProto()
    earlier = [name for other in graph.node for name in other.output if other is not node] + names + [""]
    match data.draw(st.integers(0, 12)):
        case 0:
            node.op_type = data.draw(st.sampled_from(OPERATORS))
        case 1:
            node.domain = data.draw(st.sampled_from(["com.microsoft", "ai.onnx", "trt", "other"]))
        case 2 if node.input:
            node.input[data.draw(st.integers(0, len(node.input) - 1))] = data.draw(st.sampled_from(earlier))
        case 3 if node.input:
            node.input.pop()
        case 4:
            node.input.append(data.draw(st.sampled_from(earlier)))
        case 5 if node.attribute:
            node.attribute.pop()
        case 6:
            name = data.draw(
                st.sampled_from(["axis", "perm", "to", "group", "mode", "block_size", "output_dtype"])
            )
            value = data.draw(st.sampled_from([-7, 0, 3, 99, [], [0, 1], [5, 5], "text", 0.5, ["a"]]))
            kept = [attribute for attribute in node.attribute if attribute.name != name]
            del node.attribute[:]
            node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)] if value != [] else kept)
        case 7:
            shape = data.draw(st.lists(st.integers(0, 3), max_size=3))
            kind = data.draw(st.sampled_from([np.float32, np.float16, np.int8, np.int64, np.bool_]))
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.ones(shape, kind), tensor.name))
        case 8:
            tensor.data_type = data.draw(st.integers(0, 30))
        case 9:
            model.opset_import[0].version = data.draw(st.integers(0, 40))
        case 10 if graph.input:
            graph.input[0].type.Clear()
        case 11 if graph.node:
            graph.node.remove(node)
        case 12:
            node.output[:] = data.draw(st.lists(st.sampled_from(["", "new", *names]), max_size=2))


@MANY
@given(model=st.sampled_from(MODELS), place=st.floats(0, 1), content=st.binary(min_size=1, max_size=4))
def test_any_damage_to_a_file_is_judged_or_refused(
    model: onnx.ModelProto, place: float, content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    whole = bytearray(model.SerializeToString()[:100_000])
    start = int(place * len(whole))
    whole[start : start + len(content)] = content
    path.write_bytes(whole)
    try:
        lint_file(path)
    except ArtifactError as error:
        assert "damaged.onnx" in str(error)
