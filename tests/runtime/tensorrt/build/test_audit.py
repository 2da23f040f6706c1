"""Verdicts on products of a graph, for lists of layers written by hand."""

from typing import Any

import onnx
import pytest

from saq_qat_runtime.bundle.onnx_file import parse_graph
from saq_qat_runtime.tensorrt.build.audit import audit_layers
from saq_qat_runtime.tensorrt.build.layers import EngineLayer, EngineLayers
from saq_qat_runtime.tensorrt.engine_record import LayerVerdict
from tests.export.lint.lint_graphs import Net


def layer(
    *nodes: str,
    kind: str = "correlation",
    inputs: tuple[str, ...] = ("Int8",),
    constants: tuple[str, ...] = ("Int8", "Float"),
) -> EngineLayer:
    return EngineLayer(
        f"engine {nodes[0]}", kind, inputs, constants, "\u001e".join(f"[ONNX Layer: {n}]" for n in nodes)
    )


def verdicts(model: onnx.ModelProto, *layers: EngineLayer) -> tuple[LayerVerdict, ...]:
    return audit_layers(parse_graph(model.SerializeToString()), EngineLayers("build log", layers)).layers


def quantized_conv() -> tuple[onnx.ModelProto, str]:
    net = Net()
    conv = net.conv(net.pair(net.input([2, 16, 8, 8])))
    return net.model(conv), conv


def attention() -> tuple[onnx.ModelProto, str]:
    """A product of two quantized tensors, one of them turned round."""
    net = Net()
    tokens = net.pair(net.input([2, 16, 32]))
    product = net.node("MatMul", tokens, net.node("Transpose", tokens, perm=[0, 2, 1]))
    return net.model(product), product


def test_int8_data_and_int8_weights_make_an_integer_layer() -> None:
    model, conv = quantized_conv()
    assert verdicts(model, layer(conv)) == (LayerVerdict(conv, "Conv", True, True, f"engine {conv}", ""),)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({"inputs": ("Float",)}, "reads Float data"),
        ({"inputs": ("Float", "Int8")}, "reads Float, Int8 data"),
        ({"constants": ("Float",)}, "constants are Float"),
        ({"constants": ()}, "constants are no"),
        ({"inputs": ()}, "reads no data"),
        (
            {"kind": "kgen"},
            "no layer of the engine is known to compute it; its name stands at layers of kind kgen",
        ),
        ({"kind": "unknown"}, "no layer of the engine is known to compute it"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_float_layer_is_never_called_integer(found: dict[str, tuple[str, ...]], reason: str) -> None:
    model, conv = quantized_conv()
    (verdict,) = verdicts(model, layer(conv, **found))  # type: ignore[arg-type]  # fields of one type
    assert verdict.expected
    assert not verdict.integer
    assert reason in verdict.reason


def test_a_layer_that_is_not_found_is_not_integer() -> None:
    model, conv = quantized_conv()
    (verdict,) = verdicts(model, layer(f"{conv}0"))
    assert (verdict.integer, verdict.engine_layer) == (False, "")
    assert verdict.reason == "no layer of the engine is known to compute it"


def test_every_layer_that_computes_a_node_must_be_int8() -> None:
    model, conv = quantized_conv()
    (verdict,) = verdicts(model, layer(conv), layer(conv, inputs=("Half",)), layer(conv, kind="kgen"))
    assert not verdict.integer


def test_one_layer_may_compute_several_nodes() -> None:
    net = Net()
    image = net.pair(net.input([2, 16, 8, 8]))
    first, second = net.conv(image), net.conv(image)
    found = verdicts(net.model(first, second), layer(first, second, kind="CaskConvolution"))
    assert [verdict.integer for verdict in found] == [True, True]
    assert {verdict.engine_layer for verdict in found} == {f"engine {first}"}


def test_a_product_of_two_tensors_needs_two_int8_inputs() -> None:
    model, product = attention()
    both = layer(product, kind="gemm", inputs=("Int8", "Int8"), constants=("Float",))
    one = layer(product, kind="gemm", inputs=("Int8", "Float"), constants=("Int8",))
    assert verdicts(model, both)[0] == LayerVerdict(product, "MatMul", True, True, f"engine {product}", "")
    assert "reads Float as the second factor" in verdicts(model, one)[0].reason


@pytest.mark.parametrize("weights_too", [True, False])
def test_what_is_not_quantized_is_not_expected_to_be_int8(weights_too: bool) -> None:
    net = Net()
    image = net.input([2, 16, 8, 8])
    data = image if weights_too else net.pair(image)
    weight = net.floats(16, 16, 3, 3)
    conv = net.node("Conv", data, weight)
    (verdict,) = verdicts(net.model(conv), layer(conv, inputs=("Float",), constants=("Float",)))
    assert (verdict.expected, verdict.integer) == (False, False)
    assert verdict.reason.startswith(f"not quantized: {f'{image}, ' if weights_too else ''}{weight}; ")


def test_carriers_between_dequantize_and_product_change_nothing() -> None:
    net = Net()
    tokens = net.node("Reshape", net.pair(net.input([2, 4, 4, 32])), net.constant([2, 16, 32], "int64"))
    weight = net.node("Transpose", net.weight(64, 32), perm=[1, 0])
    product = net.node("MatMul", tokens, weight)
    (verdict,) = verdicts(net.model(product), layer(product, kind="gemm"))
    assert (verdict.expected, verdict.integer) == (True, True)


@pytest.mark.parametrize("op", ["MaxPool", "DepthToSpace", "Concat"])
def test_what_tensorrt_moves_before_the_dequantizer_leaves_a_layer_int8(op: str) -> None:
    settings: dict[str, dict[str, Any]] = {
        "MaxPool": {"kernel_shape": [2, 2]},
        "DepthToSpace": {"blocksize": 2},
        "Concat": {"axis": 1},
    }
    net = Net()
    image = net.pair(net.input([2, 16, 8, 8]))
    moved = net.node(op, *[image] * (2 if op == "Concat" else 1), **settings[op])
    conv = net.node("Conv", moved, net.weight(16, {"DepthToSpace": 4, "Concat": 32}.get(op, 16), 3, 3))
    (verdict,) = verdicts(net.model(conv), layer(conv))
    assert (verdict.expected, verdict.integer) == (True, True)


def test_a_concat_with_one_float_input_is_not_expected_to_be_int8() -> None:
    net = Net()
    image = net.input([2, 16, 8, 8])
    conv = net.node("Conv", net.node("Concat", net.pair(image), image, axis=1), net.weight(16, 32, 3, 3))
    (verdict,) = verdicts(net.model(conv), layer(conv, inputs=("Float",)))
    assert not verdict.expected


def test_other_quantized_types_are_not_expected_to_be_int8() -> None:
    net = Net(opset=21)
    conv = net.node("Conv", net.pair(net.input([2, 16, 8, 8]), dtype="int16"), net.weight(16, 16, 3, 3))
    (verdict,) = verdicts(net.model(conv), layer(conv, inputs=("Float",)))
    assert not verdict.expected


def test_a_node_without_a_name_is_found_under_the_name_that_the_parser_gives_it() -> None:
    model, conv = quantized_conv()
    for node in model.graph.node:
        node.name = ""
    (verdict,) = verdicts(model, layer(f"node_of_{conv}"))
    assert (verdict.node, verdict.integer) == (f"node_of_{conv}", True)


def test_nodes_that_share_a_name_are_integer_only_if_each_can_have_its_own_int8_layer() -> None:
    net = Net()
    image = net.pair(net.input([2, 16, 8, 8]))
    model = net.model(net.conv(image), net.conv(image))
    for node in model.graph.node:
        node.name = "same"
    assert [v.integer for v in verdicts(model, layer("same"), layer("same"))] == [True, True]
    assert [v.integer for v in verdicts(model, layer("same"))] == [False, False]
    assert "2 nodes share its name" in verdicts(model, layer("same"))[0].reason


def test_every_kind_of_product_is_audited_and_nothing_else() -> None:
    net = Net()
    image = net.pair(net.input([2, 16, 8, 8]))
    up = net.node("ConvTranspose", image, net.weight(16, 8, 3, 3, axis=1))
    flat = net.node("Flatten", image)
    gemm = net.node("Gemm", flat, net.weight(10, 1024), transB=1)
    matmul = net.node("MatMul", flat, net.weight(1024, 10, axis=1))
    total = net.node("Add", gemm, matmul)
    found = verdicts(net.model(up, total))
    assert [verdict.op for verdict in found] == ["ConvTranspose", "Gemm", "MatMul"]


def test_a_graph_of_a_thousand_steps_is_audited() -> None:
    net = Net()
    tensor = net.pair(net.input([2, 16, 32]))
    for _ in range(1500):
        tensor = net.node("Identity", tensor)
    product = net.node("MatMul", tensor, tensor)
    (verdict,) = verdicts(net.model(product), layer(product, kind="gemm", inputs=("Int8", "Int8")))
    assert verdict.integer
