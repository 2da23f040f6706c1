"""Every number of a file is the checkpoint's: no false alarm, and one changed number is found and named."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from saq_qat.errors import ArtifactError
from saq_qat_export.proof.numbers.compare import Numbers, compare_file
from tests.export.onnx_models import Array
from tests.export.proof.numbers import CASES, TARGETS, Case, changed, file_of, trained_of

by_name = {case.name: case for case in CASES}


def compared(name: str, content: bytes) -> Numbers:
    return compare_file(content, trained_of(by_name[name]))


def files() -> Iterator[object]:
    """Two cases for all targets, each other one for one of them, in turn; the rest is slow."""
    for index, case in enumerate(CASES):
        # Without attention it would be the file for tensorrt again.
        own = [t for t in TARGETS if t != "tensorrt int8" or case.name in ("attention", "vit")]
        for target in own:
            quick = case.name in ("cnn-w4", "attention") or target == own[index % len(own)]
            marks = () if quick else pytest.mark.slow  # seconds for each file, and the same numbers in it
            yield pytest.param(case, target, id=f"{case}-{target}", marks=marks)


@pytest.mark.parametrize(("case", "target"), list(files()))
def test_a_file_states_the_numbers_of_its_checkpoint(case: Case, target: str) -> None:
    found = compare_file(file_of(case, target), trained_of(case))
    assert not found.differences, [str(difference) for difference in found.differences]
    assert found.compared > 500 and not found.constant_channels


@cache
def numbers_of(name: str, target: str) -> list[tuple[str, int]]:
    """Initializers that hold numbers, and how many; shapes, axes and indices are structure."""
    model = onnx.load_from_string(file_of(by_name[name], target))
    return [
        (tensor.name, int(np.prod(tensor.dims)))
        for tensor in model.graph.initializer
        if tensor.data_type != TensorProto.INT64
    ]


def off(values: Array, index: int) -> None:
    """Change one number as little as its type can."""
    flat = values.reshape(-1)
    index = min(index, flat.size - 1)
    if flat.dtype.kind == "f":
        flat[index] = np.nextafter(flat[index], flat.dtype.type(np.inf))
    elif flat.dtype.kind == "i":
        flat[index] += 1 if flat[index] < 0 else -1
    else:
        flat[index] ^= 1


GUARDED = [
    (name, target)
    for name in ("cnn-w4", "lone-norms", "offsets", "attention")
    for target in ("onnxruntime", "tensorrt int8", "tensorrt float16")
]
QUICKLY_GUARDED = [
    ("cnn-w4", "onnxruntime"),
    ("lone-norms", "tensorrt float16"),
    ("offsets", "onnxruntime"),
    ("attention", "tensorrt int8"),
]


@pytest.mark.parametrize(
    ("name", "target"),
    # Each network once; in its other files, which are slow, the same numbers stand.
    # Slow: seconds for each, all held by one comparison.
    [case if case in QUICKLY_GUARDED else pytest.param(*case, marks=pytest.mark.slow) for case in GUARDED],
)
def test_each_initializer_is_guarded(name: str, target: str) -> None:
    content = file_of(by_name[name], target)
    for tensor, size in numbers_of(name, target):
        found = compared(name, changed(content, tensor, partial(off, index=size // 6)))
        own = tensor.rsplit("_", 1)[0] if tensor.endswith(("_packed", "_step", "_low", "_point")) else tensor
        named = {difference.tensor for difference in found.differences}
        # A zero point or a bound may be one number for many: then those who read it are named.
        assert own in named or (named and size == 1) or ("zero_point" in tensor and named), (tensor, found)


@settings(max_examples=30)
@given(data=st.data())
def test_any_single_number_is_found(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["cnn-deploy-stage", "attention", "offsets-deploy-stage"]))
    target = data.draw(st.sampled_from(TARGETS))
    tensor, size = data.draw(st.sampled_from(numbers_of(name, target)))
    index = data.draw(st.integers(0, size - 1))
    content = changed(file_of(by_name[name], target), tensor, partial(off, index=index))
    assert compared(name, content).differences, (name, target, tensor, index)


Change = Callable[[Array], None]


def negate(values: Array) -> None:
    values[...] = -values


def zero(values: Array) -> None:
    values[...] = 0


def larger(values: Array) -> None:
    values[...] = (values * 1.02).astype(values.dtype)


def next_channel(values: Array) -> None:
    values[...] = np.roll(values, 1, axis=0)


def swapped_nibbles(values: Array) -> None:
    values[...] = (values >> 4) | (values << 4)


@pytest.mark.parametrize(
    ("name", "target", "tensor", "change", "what"),
    [
        ("cnn-w4", "onnxruntime", "stem.0.weight", negate, "weight code of stem.0"),
        ("cnn-w4", "onnxruntime", "stem.0.weight", next_channel, "weight code of stem.0"),
        ("cnn-w4", "onnxruntime", "branch.1.weight_packed", swapped_nibbles, "weight code of branch.1"),
        ("cnn-w4", "onnxruntime", "branch.1.weight_scale", larger, "weight scale of branch.1"),
        ("cnn-w4", "onnxruntime", "branch.1.bias", zero, "bias of branch.1"),
        ("cnn-w4", "onnxruntime", "branch.1.bias_scale", next_channel, "bias scale of branch.1"),
        ("cnn-w4", "onnxruntime", "quantizers.relu.scale", larger, "scale of quantizer relu"),
        ("cnn-w4", "tensorrt", "head.fc.bias", negate, "bias of head.fc"),
        ("cnn-deploy-stage", "tensorrt float16", "stem.0.weight", negate, "weight code of stem.0"),
        ("lone-norms", "onnxruntime", "norm.gain", negate, "parameter norm.gain"),
        ("lone-norms", "onnxruntime", "plain.shift", zero, "parameter plain.shift"),
        ("lone-norms", "tensorrt", "level", negate, "parameter level"),
        ("attention", "onnxruntime", "position", larger, "parameter position"),
    ],
)
def test_a_wrong_tensor_is_named(name: str, target: str, tensor: str, change: Change, what: str) -> None:
    found = compared(name, changed(file_of(by_name[name], target), tensor, change))
    assert what in {difference.what for difference in found.differences}
    first = next(difference for difference in found.differences if difference.what == what)
    assert tensor.removesuffix("_packed") == first.tensor
    assert first.expected != first.found


def edited(name: str, target: str, edit: Callable[[onnx.GraphProto], None]) -> Numbers:
    model = onnx.load_from_string(file_of(by_name[name], target))
    edit(model.graph)
    return compared(name, model.SerializeToString())


def node_of(graph: onnx.GraphProto, name: str) -> onnx.NodeProto:
    (node,) = [node for node in graph.node if node.name == name]
    assert isinstance(node, onnx.NodeProto)
    return node


def attribute_of(graph: onnx.GraphProto, node: str, name: str) -> onnx.AttributeProto:
    (found,) = [entry for entry in node_of(graph, node).attribute if entry.name == name]
    assert isinstance(found, onnx.AttributeProto)
    return found


@pytest.mark.parametrize("key", ["strides", "pads", "dilations", "group", "kernel_shape"])
def test_an_attribute_of_a_convolution_is_compared(key: str) -> None:
    def edit(graph: onnx.GraphProto) -> None:
        entry = attribute_of(graph, "Conv:branch.1", key)
        entry.i += 1
        if entry.ints:
            entry.ints[-1] += 1

    assert f"{key} of branch.1" in {d.what for d in edited("cnn-w4", "onnxruntime", edit).differences}


def test_a_layer_that_reads_another_quantizers_codes_is_named() -> None:
    def edit(graph: onnx.GraphProto) -> None:
        node_of(graph, "Conv:shortcut.0").input[0] = "stem_2.values"
        node_of(graph, "Conv:branch.1").input[0] = "relu.values"

    found = edited("cnn-w4", "onnxruntime", edit).differences
    assert [d.what for d in found] == ["input of branch.1"]
    assert (found[0].expected, found[0].found) == ("branch_0_2", "relu")


def test_codes_read_with_another_quantizers_scale_are_named() -> None:
    def edit(graph: onnx.GraphProto) -> None:
        node_of(graph, "DequantizeLinear:relu.values").input[1] = "quantizers.branch_2.scale"

    found = edited("cnn-w4", "onnxruntime", edit).differences
    assert [d.what for d in found] == ["scale of relu, read as relu.values"]


def test_an_offset_that_is_left_out_is_named() -> None:
    def edit(graph: onnx.GraphProto) -> None:
        (subtract,) = [node for node in graph.node if node.op_type == "Sub" and "offset" in node.input[1]][:1]
        for node in graph.node:
            for index, name in enumerate(node.input):
                if name == subtract.output[0]:
                    node.input[index] = subtract.input[0]
        graph.node.remove(subtract)

    found = edited("attention", "onnxruntime", edit).differences
    assert any(d.what.startswith("offset of quantizer") and d.found == "no subtraction" for d in found)


def stranger(graph: onnx.GraphProto) -> None:
    graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "stranger"))


def doubled_logits(graph: onnx.GraphProto) -> None:
    graph.initializer.append(numpy_helper.from_array(np.array(2.5, np.float32), "stranger"))
    last = graph.node[-1]
    last.output[0] = "before"
    graph.node.append(helper.make_node("Mul", ["before", "stranger"], ["logits"]))


def hidden_constant(graph: onnx.GraphProto) -> None:
    value = numpy_helper.from_array(np.array(0.125, np.float32))
    graph.node.insert(0, helper.make_node("Constant", [], ["stranger"], value=value))
    node_of(graph, "Gemm:logits").output[0] = "before"
    graph.node.append(helper.make_node("Add", ["before", "stranger"], ["logits"]))


def second_layer(graph: onnx.GraphProto) -> None:
    weight = numpy_helper.from_array(np.eye(10, dtype=np.float32), "stranger")
    graph.initializer.append(weight)
    node_of(graph, "Gemm:logits").output[0] = "before"
    graph.node.append(helper.make_node("Gemm", ["before", "stranger"], ["logits"], name="Gemm:logits_1"))


@pytest.mark.parametrize("edit", [stranger, doubled_logits, hidden_constant, second_layer])
def test_a_number_that_belongs_to_no_record_is_refused(edit: Callable[[onnx.GraphProto], None]) -> None:
    found = edited("cnn-w4", "onnxruntime", edit).differences
    assert [(d.tensor, d.expected) for d in found] == [("stranger", "no record")]


def test_a_record_that_the_file_lacks_is_named() -> None:
    trained = trained_of(by_name["cnn-w4"])
    records = trained.records
    layer = replace(records.layers[0], name="another", input="image")
    more = replace(records, layers=(*records.layers, layer))
    found = compare_file(file_of(by_name["cnn-w4"], "onnxruntime"), replace(trained, records=more))
    assert "layer another" in {difference.what for difference in found.differences}


@pytest.mark.parametrize("field", ["scale", "mean", "deviation"])
def test_records_that_contradict_the_checkpoint_are_named(field: str) -> None:
    trained = trained_of(by_name["cnn-w4"])
    layer = trained.records.layers[1]
    if field == "scale":
        wrong = replace(layer, weight=replace(layer.weight, scale=2 * (layer.weight.scale or 0)))
    else:
        wrong = replace(layer, **{field: getattr(layer, field) + 0.01})
    layers = tuple(wrong if own is layer else own for own in trained.records.layers)
    forged = replace(trained, records=replace(trained.records, layers=layers))
    found = compare_file(file_of(by_name["cnn-w4"], "onnxruntime"), forged)
    assert "records.json" in {difference.tensor for difference in found.differences}


@pytest.mark.parametrize("content", [b"", b"no model", b"\x08"])
def test_what_is_no_onnx_file_is_refused(content: bytes) -> None:
    with pytest.raises(ArtifactError):
        compare_file(content, trained_of(by_name["cnn-w4"]))


def test_the_comparison_needs_neither_torch_nor_what_it_judges() -> None:
    program = (
        "import sys, saq_qat_export.proof.numbers.compare;"
        "print([m for m in sys.modules if m.split('.')[0] == 'torch' or m.startswith('saq_qat.quant.')])"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "['saq_qat.quant.plan', 'saq_qat.quant.plan.records']"
