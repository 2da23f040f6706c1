"""What the exported file holds: patterns that become integer kernels, and nothing that changes by itself."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from saq_qat.quant.deploy.integer_modules import IntegerLayer, Quantize
from saq_qat.recipe.schema import Deploy
from saq_qat_export.graph.onnx_graph import INPUT, OUTPUT, export_onnx
from saq_qat_export.proof.probe import Probe
from tests.export.networks import SIDE, Lowered, small, smooth_images
from tests.export.onnx_models import session


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return onnx.load_from_string(small().graph.content)


def producer_of(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {output: node for node in model.graph.node for output in node.output}


def initializers(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def constant(model: onnx.ModelProto, name: str) -> np.ndarray:
    tensor = initializers(model).get(name)
    if tensor is None:
        tensor = producer_of(model)[name].attribute[0].t
    return numpy_helper.to_array(tensor)


def test_low_bit_codes_are_clipped_as_integers_behind_quantize(model: onnx.ModelProto) -> None:
    """The clip survives, on uint8; in float before QuantizeLinear it would leave the convolution in float."""
    producers, view = producer_of(model), small().view
    for name in small().graph.code_tensors:
        node = producers[name]
        quantizer = view.get_submodule(f"quantizers.{name.removesuffix('.codes')}")
        assert isinstance(quantizer, Quantize)
        low = quantizer.minimum + quantizer.zero_point
        high = quantizer.maximum + quantizer.zero_point
        if quantizer.on_grid or (low, high) == (0, 255):
            assert node.op_type == "QuantizeLinear"
            continue
        assert node.op_type == "Clip"
        bounds = [constant(model, bound) for bound in node.input[1:]]
        assert [bound.item() for bound in bounds] == [low, high]
        assert {bound.dtype for bound in bounds} == {np.dtype(np.uint8)}
        assert producers[node.input[0]].op_type == "QuantizeLinear"


def test_no_float_is_clipped(model: onnx.ModelProto) -> None:
    producers = producer_of(model)
    for node in model.graph.node:
        assert node.op_type not in ("Relu", "Min", "Max")
        if node.op_type == "Clip":
            assert producers[node.input[0]].op_type == "QuantizeLinear"


def test_a_relu6_narrower_than_its_grid_becomes_the_upper_code() -> None:
    found = small()
    view = found.view
    (name,) = [node for node in found.graph.code_tensors if node.startswith("activation")]
    quantizer = view.get_submodule(f"quantizers.{name.removesuffix('.codes')}")
    assert isinstance(quantizer, Quantize)
    codes, _ = Probe(found.graph).run((1e3 * smooth_images(2, SIDE)).numpy())
    assert codes[name].max() <= quantizer.maximum <= round(6 / quantizer.scale.item())


def test_every_weight_has_an_explicit_zero_point(model: onnx.ModelProto) -> None:
    weights = [n for n in model.graph.node if n.op_type == "DequantizeLinear" and ".weight" in n.input[0]]
    layers = [m for m in small().view.modules() if isinstance(m, IntegerLayer)]
    assert len(weights) == len(layers)
    for node in weights:
        zeros = constant(model, node.input[2])
        assert zeros.dtype == np.int8
        assert not zeros.any()
        assert zeros.shape == constant(model, node.input[1]).shape


def test_biases_are_int32_at_the_product_of_the_scales(model: onnx.ModelProto) -> None:
    producers = producer_of(model)
    products = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    assert products
    for node in products:
        x, weight, bias = (producers[name] for name in node.input)
        assert constant(model, bias.input[0]).dtype == np.int32
        expected = constant(model, x.input[1]) * constant(model, weight.input[1])
        np.testing.assert_array_equal(constant(model, bias.input[1]), expected.astype(np.float32))


def test_codes_are_flattened_before_they_are_dequantized(model: onnx.ModelProto) -> None:
    producers = producer_of(model)
    (gemm,) = [node for node in model.graph.node if node.op_type == "Gemm"]
    dequantize = producers[gemm.input[0]]
    assert dequantize.op_type == "DequantizeLinear"
    assert producers[dequantize.input[0]].op_type in ("Flatten", "Reshape")


def test_the_mean_is_a_global_average_pool(model: onnx.ModelProto) -> None:
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("GlobalAveragePool") == 1
    assert "ReduceMean" not in operators


def test_no_node_is_dead(model: onnx.ModelProto) -> None:
    read = {name for node in model.graph.node for name in node.input} | {OUTPUT}
    assert all(read & set(node.output) for node in model.graph.node)
    assert all(tensor.name in read for tensor in model.graph.initializer)


def test_names_tell_the_module() -> None:
    tensors = small().graph.code_tensors
    assert tensors == (
        "image.codes",
        "stem_2.codes",
        "pool.codes",
        "branch_0_2.codes",
        "branch_2.codes",
        "shortcut_1.codes",
        "relu.codes",
        "activation.codes",
        "head_pool.codes",
    )


def test_names_of_nodes_are_unique_and_integers_are_called_after_parameters(model: onnx.ModelProto) -> None:
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    values = [name for node in model.graph.node for name in node.output]
    assert len(set(values)) == len(values)
    layers = {n for n, m in small().view.named_modules() if isinstance(m, IntegerLayer)}
    stored = values + list(initializers(model))
    assert {f"{layer}.weight" for layer in layers} <= set(stored)
    assert {f"{layer}.bias" for layer in layers} <= set(stored)
    assert {node.op_type + ":" + node.output[0] for node in model.graph.node} == set(names)


def test_the_file_tells_nothing_of_where_and_when_it_was_made() -> None:
    content = small().graph.content
    model = onnx.load_from_string(content)
    assert not model.metadata_props
    assert not model.doc_string
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
    assert not any(value.metadata_props for value in (*model.graph.value_info, *model.graph.initializer))
    assert str(Path.cwd()).encode() not in content
    assert not re.search(rb"\.py\b|/home/|site-packages|20[23]\d-\d\d-\d\d", content)
    assert (model.producer_name, model.producer_version) == ("saq-qat", "")


def test_only_the_standard_operators_at_one_opset(model: onnx.ModelProto) -> None:
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 21)]
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions


def test_weights_lie_inside_the_file(model: onnx.ModelProto, tmp_path: Path) -> None:
    assert all(t.data_location != onnx.TensorProto.EXTERNAL for t in model.graph.initializer)
    path = tmp_path / "elsewhere" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(small().graph.content)
    onnx.checker.check_model(str(path), full_check=True)
    session(path.read_bytes())


@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_batch_gives_the_logits_of_its_images(count: int) -> None:
    runner = session(small().graph.content)
    images = smooth_images(7, SIDE, seed=2).numpy()
    (together,) = runner.run(None, {INPUT: images})
    (some,) = runner.run(None, {INPUT: images[:count]})
    assert some.shape == (count, 10)
    np.testing.assert_array_equal(some, together[:count])


def test_another_size_of_image_is_refused() -> None:
    runner = session(small().graph.content)
    with pytest.raises(Exception, match=r"invalid dimensions|Got invalid"):
        runner.run(None, {INPUT: smooth_images(1, SIDE + 1).numpy()})


def test_two_exports_are_byte_identical() -> None:
    found = small()
    again = export_onnx(found.view, (3, SIDE, SIDE), Deploy())
    assert again == found.graph


_EXPORT = """
import hashlib, json, warnings
warnings.simplefilter("ignore")
from tests.export.networks import small
graph = small().graph
print(json.dumps([hashlib.sha256(graph.content).hexdigest(), graph.code_tensors]))
"""


def test_two_processes_export_the_same_bytes() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "123"}
    done = subprocess.run(
        [sys.executable, "-c", _EXPORT], env=environment, capture_output=True, text=True, check=True
    )
    graph = small().graph
    expected = [hashlib.sha256(graph.content).hexdigest(), list(graph.code_tensors)]
    assert json.loads(done.stdout.splitlines()[-1]) == expected


def same_codes(a: Lowered, b: Lowered) -> None:
    images = smooth_images(4, SIDE, seed=3).numpy()
    (own, logits), (other, others) = (Probe(found.graph).run(images) for found in (a, b))
    assert own.keys() == other.keys()
    for name, codes in own.items():
        np.testing.assert_array_equal(codes, other[name], err_msg=name)
    np.testing.assert_array_equal(logits, others)


# Both are packed alike; one of them is enough for every run.
@pytest.mark.parametrize("bits", [(4, 4), pytest.param((2, 2), marks=pytest.mark.slow)], ids=str)
def test_packing_changes_the_size_and_no_code(bits: tuple[int, int]) -> None:
    packed, plain = small(*bits), small(*bits, pack_weights=False)
    same_codes(packed, plain)
    kinds = {t.data_type for t in onnx.load_from_string(packed.graph.content).graph.initializer}
    assert onnx.TensorProto.UINT4 in kinds
    assert onnx.TensorProto.UINT4 not in {
        t.data_type for t in onnx.load_from_string(plain.graph.content).graph.initializer
    }


def test_coarse_biases_change_stored_weights_by_the_power_of_two_alone() -> None:
    fine, coarse = small(), small(refine_bias=False)
    for name, layer in fine.view.named_modules():
        if isinstance(layer, IntegerLayer):
            other = coarse.view.get_submodule(name)
            assert isinstance(other, IntegerLayer)
            assert other.refinement == 1
            assert torch.equal(layer.weight, other.weight * layer.refinement)
            assert torch.equal(layer.weight_scale, other.weight_scale / layer.refinement)
    assert session(coarse.graph.content)
