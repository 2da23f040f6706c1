"""One reader of QDQ graphs: who alone reads a value, and which codes it holds."""

from typing import Any

import numpy as np
import pytest

from saq_qat_export.reference.qdq_graph import QdqGraph
from saq_qat_export.reference.qdq_reference import read_qdq
from tests.export.lint.lint_graphs import Net


def wired(net: Net, *outputs: str) -> QdqGraph:
    return QdqGraph(net.model(*outputs).graph)


@pytest.mark.parametrize("between", [(), ("Relu",), ("Flatten",), ("Identity", "Relu", "Transpose")])
def test_a_quantizer_alone_reads_a_value_through_reshapes_and_bounds(between: tuple[str, ...]) -> None:
    net = Net()
    value = last = net.conv(net.pair(net.input([2, 16, 8, 8])))
    for op in between:
        last = net.node(op, last)
    codes = net.quantize(last)
    graph = wired(net, net.dequantize(codes))
    found = graph.quantizer_behind(value)
    assert found is not None and (found.source, found.result) == (last, codes)
    assert found.scale == np.float32(0.1) and found.zero_point == 0


@pytest.mark.parametrize(
    "other", ["output", "Sigmoid", "second quantizer", "Softmax between", "second input"]
)
def test_with_any_other_reader_no_quantizer_alone_reads_a_value(other: str) -> None:
    net = Net()
    value = net.conv(net.pair(net.input([2, 16, 8, 8])))
    between = net.node("Softmax", value) if other == "Softmax between" else value
    if other == "second input":
        between = net.node("Reshape", net.constant([1], np.float32), value)
    last = net.pair(between)
    more = {"output": value, "Sigmoid": None, "second quantizer": None}.get(other, last)
    if other == "Sigmoid":
        more = net.node("Sigmoid", value)
    if other == "second quantizer":
        more = net.pair(value, 0.3)
    assert more is not None
    assert wired(net, last, more).quantizer_behind(value) is None


def test_who_asks_for_the_shape_is_a_reader_only_where_that_counts() -> None:
    net = Net()
    value = net.node("Relu", net.input([2, 3]))
    net.node("Shape", value)
    graph = wired(net, net.pair(value))
    assert graph.quantizer_behind(value) is not None
    assert graph.quantizer_behind(value, shapes=True) is None


def test_codes_of_weights_are_no_activations_even_where_they_are_unpacked() -> None:
    net = Net()
    image = net.pair(net.input([2, 16]))
    packed = net.node("Cast", net.constant(np.ones((16, 4)), np.uint8), to=3)
    weight = net.dequantize(packed, np.full(4, 0.1), axis=1)
    turned = net.node("Transpose", image, perm=[1, 0])
    graph = wired(net, net.node("MatMul", image, weight), turned)
    assert graph.reads_activation_codes(image) and graph.reads_activation_codes(turned)
    assert not graph.reads_activation_codes(weight) and not graph.reads_activation_codes("image")
    assert packed in graph.fixed and image not in graph.fixed


def test_joined_codes_are_codes_only_if_all_are() -> None:
    net = Net()
    image = net.input([2, 16])
    codes = net.quantize(image)
    both, mixed = net.node("Concat", codes, codes, axis=1), net.node("Concat", codes, image, axis=1)
    graph = wired(net, both, mixed)
    assert both in graph.codes and mixed not in graph.codes


def test_a_chain_of_a_thousand_reshapes_is_walked() -> None:
    net = Net()
    value = last = net.pair(net.input([2, 3]))
    for _ in range(1500):
        last = net.node("Identity", last)
    graph = wired(net, net.pair(last))
    assert graph.quantizer_behind(value) is not None
    assert graph.reads_activation_codes(last)


@pytest.mark.parametrize("op", ["Gather", "Slice", "Tile", "DepthToSpace"])
def test_a_layer_behind_moved_codes_is_read_as_integers(op: str) -> None:
    others = {"Gather": [[1, 0]], "Slice": [[0], [1], [2]], "Tile": [[1, 1, 2, 2]]}.get(op, [])
    net = Net()
    image = net.pair(net.input([2, 16, 8, 8]))
    settings: dict[str, dict[str, Any]] = {"Gather": {"axis": 2}, "DepthToSpace": {"blocksize": 2}}
    moved = net.node(op, image, *(net.constant(value, np.int64) for value in others), **settings.get(op, {}))
    channels = 4 if op == "DepthToSpace" else 16
    conv = net.node("Conv", moved, net.weight(8, channels, 1, 1))
    model = net.model(conv)
    reading = read_qdq(model, np.random.default_rng(0).normal(size=(2, 16, 8, 8)).astype(np.float32))
    assert len(reading.layers) == 1
