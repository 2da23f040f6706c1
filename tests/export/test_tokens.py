"""Transformers: linear layers on tokens and products of two tensors are integer kernels, and proved."""

from functools import cache
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saq_qat.quant.deploy.integer_modules import Quantize
from saq_qat.quant.deploy.kernels import float_results
from saq_qat.recipe.schema import ActivationQuantizer, Deploy
from saq_qat_export.bundle.records import tensor_records
from saq_qat_export.graph.onnx_graph import OUTPUT, OnnxGraph, export_onnx
from saq_qat_export.proof.codes import code_comparisons, tie_images
from saq_qat_export.proof.comparison import Comparison
from saq_qat_export.proof.probe import Probe, with_code_outputs
from saq_qat_export.proof.tensors import producers
from saq_qat_export.reference.deploy_view import run_reference
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend
from tests.export.networks import CLASSES, Lowered, lower, policy, smooth_images
from tests.export.onnx_models import session
from tests.export.photos import photos
from tests.quant.networks import Attention

SIDE = 8
SHAPE = (3, SIDE, SIDE)


@cache
def transformer(weight_bits: int = 4, activation_bits: int = 4, offset: str = "bounded") -> Lowered:
    torch.manual_seed(0)
    activation = {"bits": activation_bits, "kind": "lsq", "offset": offset}
    quant = policy(weight_bits, activation_bits, activation=ActivationQuantizer.model_validate(activation))
    return lower(Attention(), quant, smooth_images(16, SIDE), Deploy(pack_weights=False))


def images(count: int = 6) -> Tensor:
    return smooth_images(count, SIDE, seed=1)


def climb(found: Lowered, batches: list[Tensor], graph: OnnxGraph | None = None) -> list[Comparison]:
    _, channels, height, width = batches[0].shape
    ties = tie_images(found.view, (channels, height, width))
    return code_comparisons(found.view, graph or found.graph, batches, ties)


def assert_proved(found: Lowered, batches: list[Tensor]) -> None:
    """No integer operation differs, codes behind float ones rarely; logits of taught codes are equal."""
    reference, double, single = climb(found, batches)
    for comparison in (reference, double, single):
        print(
            f"{comparison.name}: {comparison.compared:,} compared, {comparison.mismatches} differ; "
            f"{comparison.detail}"
        )
        assert comparison.passed, comparison.detail
    assert not [t for t in (*reference.tensors, *double.tensors) if t.producer == "integer" and t.mismatches]
    seen = Probe(found.graph).observe(batches[0].numpy())
    own = run_reference(found.view, batches[0].numpy(), seen.codes)
    np.testing.assert_array_equal(own.logits, seen.logits)
    for name, values in seen.values.items():
        np.testing.assert_array_equal(own.values[name].reshape(values.shape), values)


@pytest.mark.parametrize(
    ("bits", "offset"),
    [((2, 2), "bounded"), ((4, 4), "none"), ((4, 4), "bounded"), ((4, 4), "signed"), ((8, 8), "bounded")],
    ids=str,
)
def test_every_integer_operation_is_exact(bits: tuple[int, int], offset: str) -> None:
    assert_proved(transformer(*bits, offset), [images()])


@pytest.mark.slow  # a transformer of full depth
@pytest.mark.parametrize("bits", [(2, 2), (4, 4), (8, 8)], ids=str)
def test_a_vision_transformer_is_exact(bits: tuple[int, int]) -> None:
    pytest.importorskip("timm", reason="needs the extra vit")
    from saq_qat.models.vit import vit_micro

    torch.manual_seed(0)
    activation = ActivationQuantizer.model_validate({"bits": bits[1], "kind": "lsq", "offset": "bounded"})
    found = lower(vit_micro(CLASSES), policy(*bits, activation=activation), photos(8, 32))
    assert_proved(found, list(torch.split(photos(16, 32, seed=1), 4)))
    kernels = OnnxRuntimeBackend(found.graph.content).integer_count()
    assert kernels.integer == kernels.total == len(found.plan.layers) + len(found.plan.products)


def test_every_layer_and_product_runs_on_an_integer_kernel() -> None:
    """Also where codes and floats in between are further outputs."""
    for content in (transformer().graph.content, with_code_outputs(transformer().graph)):
        kernels = OnnxRuntimeBackend(content).integer_count()
        assert kernels.by_op == {"MatMulIntegerToFloat": 1, "QGemm": 7, "QLinearConv": 1, "QLinearMatMul": 1}


def test_a_product_reads_its_dequantizer_itself() -> None:
    graph = onnx.load_from_string(transformer().graph.content).graph
    producer = {name: node for node in graph.node for name in node.output}
    products = [node for node in graph.node if node.op_type in ("Gemm", "MatMul")]
    assert len(products) == 9
    for node in products:
        assert {producer[name].op_type for name in node.input} == {"DequantizeLinear"}


def test_readers_that_flatten_the_same_codes_share_the_flat_ones() -> None:
    nodes = onnx.load_from_string(transformer().graph.content).graph.node
    assert [n.op_type for n in nodes if "norm1.codes" in n.input] == ["Reshape"]
    readers = [n.output[0] for n in nodes if "norm1.moved.values" in n.input]
    assert readers == ["q", "k", "v"]


def test_between_codes_of_keys_and_their_product_nothing_is_a_float(tmp_path: Path) -> None:
    """Reshapes and transposes move bytes."""
    path = tmp_path / "optimized.onnx"
    session(transformer().graph.content, str(path))
    nodes = onnx.load(path).graph.node
    producer = {name: node for node in nodes for name in node.output}
    (product,) = [node for node in nodes if node.op_type == "MatMulIntegerToFloat"]
    passed, node = [], producer[product.input[1]]
    while node.op_type in ("Reshape", "Transpose"):
        passed.append(node.op_type)
        node = producer[node.input[0]]
    assert node.op_type == "Clip" and "Transpose" in passed


def test_second_operands_are_stored_as_int8_with_zero_point_0() -> None:
    found = transformer()
    stored = {name: codes.dtype for name, codes in Probe(found.graph).run(images().numpy())[0].items()}
    int8 = {name for name, dtype in stored.items() if dtype == np.int8}
    assert int8 == {"k.codes", "v.codes"}
    records = {record.code_tensor: record for record in tensor_records(found.view)}
    assert {name for name, record in records.items() if record.dtype == "int8"} == int8
    assert all((records[n].zero_point, records[n].code_min, records[n].code_max) == (0, -8, 7) for n in int8)


def test_floats_that_integer_kernels_write_are_named_after_layers_and_products() -> None:
    found = transformer()
    expected = ("matmul", "proj", "fc1", "fc2", "logits")
    assert found.graph.float_results == tuple(float_results(found.view).values()) == expected
    kinds = producers(found.view)
    assert all(kinds[name] == "integer" for name in expected)
    assert {name for name, kind in kinds.items() if kind == "float"} == {
        "norm1.codes", "softmax.codes", "norm2.codes", "act.codes", "getitem_4.codes"
    }  # fmt: skip  # one value a line is a page


@pytest.mark.parametrize("count", [1, 3])
def test_any_batch_gives_the_codes_of_its_images(count: int) -> None:
    probe = Probe(transformer().graph)
    together, some = (probe.observe(images()[:n].numpy()) for n in (6, count))
    for name in ("norm1.codes", "mul.codes", "k.codes", "fc1"):
        whole, part = ({**seen.codes, **seen.values}[name] for seen in (together, some))
        np.testing.assert_array_equal(part, whole[: len(part)])
    np.testing.assert_allclose(some.logits, together.logits[:count], rtol=1e-4, atol=1e-4)


class Chain(nn.Module):
    """A linear layer whose codes the next one reads, on tokens; and one whose floats two readers share."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, 2)
        self.first, self.second, self.third = (nn.Linear(8, 8) for _ in range(3))
        self.last = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = self.second(F.relu(self.first(x)))
        x = self.third(x) + torch.sigmoid(x)
        return cast(Tensor, self.last(x.mean(1)))


def test_layers_on_tokens_hand_each_other_codes() -> None:
    found = lower(Chain(), policy(4, 4), smooth_images(8, SIDE))
    assert_proved(found, [images()])
    assert producers(found.view)["relu.codes"] == "integer"
    kernels = OnnxRuntimeBackend(found.graph.content).integer_count()
    assert kernels.by_op == {"QGemm": 4, "QLinearConv": 1}


class ClassToken(nn.Module):
    """A token that is the same for every image, as Vision Transformers have."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 2, 2)
        self.token = nn.Parameter(torch.linspace(-1, 1, 8).reshape(1, 1, 8))
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        return cast(Tensor, self.head(self.norm(x)[:, 0] + self.norm(x).mean(1)))


def test_a_token_of_every_image_needs_no_operator_that_the_runtime_refuses() -> None:
    found = lower(ClassToken(), policy(4, 4), smooth_images(8, SIDE))
    assert "Expand" not in {n.op_type for n in onnx.load_from_string(found.graph.content).graph.node}
    assert_proved(found, [images()])
    for count in (1, 5):
        (logits,) = session(found.graph.content).run([OUTPUT], {"image": images(count).numpy()})
        assert logits.shape == (count, CLASSES)


def test_two_exports_are_the_same_bytes() -> None:
    found = transformer()
    assert export_onnx(found.view, SHAPE, Deploy(pack_weights=False)) == found.graph


def test_an_offset_is_subtracted_in_float_before_the_codes() -> None:
    """What the layer behind them lacks is part of its bias."""
    found = transformer()
    graph = onnx.load_from_string(found.graph.content).graph
    producer = {name: node for node in graph.node for name in node.output}
    quantize = producer["act.unclipped"]
    assert producer[quantize.input[0]].op_type == "Sub"
    module = found.view.get_submodule("quantizers.act")
    assert isinstance(module, Quantize)
    assert (module.minimum, module.maximum, module.zero_point) == (0, 15, 0)
    codes, _ = Probe(found.graph).run(images().numpy())
    assert codes["act.codes"].max() <= 15
