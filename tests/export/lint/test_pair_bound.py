"""ORT005 over files: every integer product that tests and recipes write, and files of other origin."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from saq_qat.models.build import build_model
from saq_qat.quant.deploy.view import deploy_view
from saq_qat.quant.network import calibrate, quantize
from saq_qat.recipe.load import load_recipe
from saq_qat_export.graph.onnx_graph import OnnxGraph, export_onnx
from saq_qat_export.lint.pair_bound import integer_products, is_for_tensorrt, pair_findings
from tests.export.cases import TINY
from tests.export.networks import disturb, lower, policy, small, smooth_images

CONFIGS = Path(__file__).parents[3] / "configs"
RECIPES = sorted(set(CONFIGS.rglob("*.yaml")) - set((CONFIGS / "studies").glob("*.yaml")))
INT16_MAX = 32767


def assert_portable(graph: OnnxGraph, products: int) -> None:
    found = integer_products(onnx.load_from_string(graph.content))
    assert len(found) == products
    for product in found:
        pair = 2 * product.largest_first * product.largest_second
        assert pair <= INT16_MAX or not product.saturates, product
    assert graph.over_pair_bound == ()


@pytest.mark.parametrize("bits", range(2, 9))
def test_no_product_of_a_small_network_exceeds_the_bound(bits: int) -> None:
    found = small(bits, bits)
    assert_portable(found.graph, len(found.plan.layers))


@pytest.mark.parametrize("bits", [4, 8])
def test_no_product_of_a_transformer_exceeds_the_bound(bits: int) -> None:
    """Of one block, with two products of activations."""
    pytest.importorskip("timm", reason="needs the extra vit")
    network = TINY[0]
    torch.manual_seed(0)
    found = lower(network.build(), policy(bits, bits), smooth_images(2, network.side))
    assert_portable(found.graph, len(found.plan.layers) + len(found.plan.products))
    products = integer_products(onnx.load_from_string(found.graph.content))
    assert sum(not product.saturates for product in products) == (1 if bits == 8 else 0)


def recipes_with_a_network_of_their_own() -> list[Any]:
    """One of those whose model, quantizers and targets are the same; schedules change no product.

    One of each kind of network beside the slow ones.
    """
    first: dict[str, Path] = {}
    for path in RECIPES:
        recipe = load_recipe(path, [])
        if recipe.quant is not None and "bench" not in path.parts and path.parent.name != "imagenet":
            model = recipe.model.model_copy(update={"pretrained": None})
            first.setdefault(f"{model!r} {recipe.quant!r} {recipe.deploy!r}", path)
    quick = ("configs/quickstart", "imagenette/mobilenetv2-w4a4-saq", "cifar10/vit-micro-w4a4-adamw")
    return [
        # Slow: many seconds for each network.
        path if str(path.with_suffix("")).endswith(quick) else pytest.param(path, marks=pytest.mark.slow)
        for path in sorted(first.values())
    ]


@pytest.mark.parametrize("path", recipes_with_a_network_of_their_own(), ids=str)
def test_no_product_of_a_shipped_recipe_exceeds_the_bound(path: Path) -> None:
    recipe = load_recipe(path, [])
    assert recipe.quant is not None
    package, _, of_others = recipe.model.name.partition(":")
    if of_others:
        pytest.importorskip(package, reason=f"the network of this recipe is in the package {package}")
    torch.manual_seed(0)
    model = build_model(recipe.model.model_copy(update={"pretrained": None}), 10)
    side = min(recipe.data.image_size, 64)
    disturb(model)
    network, plan = quantize(model, recipe.quant, recipe.deploy.targets)
    calibrate(network, [smooth_images(2, side)])
    graph = export_onnx(deploy_view(network.eval(), recipe.deploy), (3, side, side), recipe.deploy)
    assert_portable(graph, len(plan.layers) + len(plan.products))


def product_model(
    first: str, second: str, largest: int, weight: int, *, constant: bool = True
) -> onnx.ModelProto:
    """QuantizeLinear, Clip and MatMul with codes up to ``largest`` and ``weight``."""
    dtypes: dict[str, Any] = {"uint8": np.uint8, "int8": np.int8}
    numbers = {
        "x_s": np.float32(0.1), "x_z": dtypes[first](0), "w_s": np.float32(0.1), "w_z": dtypes[second](0),
        "low": dtypes[first](0), "high": dtypes[first](largest),
    }  # fmt: skip  # one value a line is a page
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])]
    if constant:
        numbers["w"] = np.full((4, 3), weight).astype(dtypes[second])
    else:
        element = helper.np_dtype_to_tensor_dtype(np.dtype(dtypes[second]))
        inputs.append(helper.make_tensor_value_info("w", element, [4, 3]))
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_s", "x_z"], ["q"]),
        helper.make_node("Clip", ["q", "low", "high"], ["codes"]),
        helper.make_node("DequantizeLinear", ["codes", "x_s", "x_z"], ["a"]),
        helper.make_node("DequantizeLinear", ["w", "w_s", "w_z"], ["b"]),
        helper.make_node("MatMul", ["a", "b"], ["y"], name="product"),
    ]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in numbers.items()]
    graph = helper.make_graph(nodes, "one_product", inputs, [result], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize(
    ("first", "second", "largest", "weight", "numbers"),
    [
        ("uint8", "int8", 255, 64, None),
        ("uint8", "int8", 255, 65, (255, 65)),
        ("uint8", "int8", 255, -65, (255, 65)),
        ("uint8", "int8", 127, 127, None),
        ("uint8", "int8", 128, -128, (128, 128)),
        ("uint8", "uint8", 255, 255, None),
        ("int8", "int8", 127, 65, (255, 65)),
        ("int8", "int8", 15, 100, None),
    ],
)
def test_the_rule_reads_clips_and_weights(
    first: str, second: str, largest: int, weight: int, numbers: tuple[int, int] | None
) -> None:
    model = product_model(first, second, largest, weight)
    findings = pair_findings(model)
    if numbers is None:
        assert findings == ()
        return
    (finding,) = findings
    assert (finding.rule, finding.level, finding.where) == ("ORT005", "error", "product")
    assert f"2 * {numbers[0]} * {numbers[1]}" in finding.message


def test_a_second_factor_that_is_computed_counts_with_all_it_can_hold() -> None:
    (finding,) = pair_findings(product_model("uint8", "int8", 255, 0, constant=False))
    assert "2 * 255 * 128" in finding.message
    assert pair_findings(product_model("uint8", "uint8", 255, 0, constant=False)) == ()


@pytest.mark.parametrize("operator", ["MatMulInteger", "QLinearMatMul"])
def test_operators_on_codes_are_products_too(operator: str) -> None:
    codes = ["x", "w"] if operator == "MatMulInteger" else ["x", "s", "z", "w", "s", "zw", "s", "z"]
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, [2, 4])
    y = helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None)
    arrays = {"w": np.full((4, 3), 100, np.int8), "s": np.float32(1), "z": np.uint8(0), "zw": np.int8(0)}
    constants = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    graph = helper.make_graph([helper.make_node(operator, codes, ["y"])], "one", [x], [y], constants)
    (finding,) = pair_findings(helper.make_model(graph))
    assert (finding.where, "2 * 255 * 100" in finding.message) == ("y", True)


def test_int8_codes_throughout_are_for_tensorrt() -> None:
    for first, expected in (("int8", True), ("uint8", False)):
        model = product_model(first, "int8", 127, 127)
        assert is_for_tensorrt(integer_products(model), model) is expected
