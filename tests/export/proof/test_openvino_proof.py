"""OpenVINO's own codes, sums and logits: exact where the promise holds, and named where it does not."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from saq_qat.quant.deploy.integer_modules import IntegerConv2d
from saq_qat_export.graph.onnx_graph import OnnxGraph, read_onnx
from saq_qat_export.proof.codes import tie_images
from saq_qat_export.proof.comparison import Comparison
from saq_qat_export.proof.openvino import OpenVinoProbe, openvino_comparisons
from saq_qat_runtime.openvino import OpenVinoBackend
from tests.export.cases import TINY, Network
from tests.export.networks import CLASSES, SIDE, Lowered, Small, policy, smooth_images
from tests.export.openvino_networks import (
    built_in_for_openvino,
    lowered_for_openvino,
    openvino_graph,
    small_for_openvino,
)
from tests.quant.networks import Shortcut

CODES, SUMS, KEPT, KERNELS, SHIPPED = 0, 1, 2, 3, -1


def climb(found: Lowered, side: int, graph: OnnxGraph | None = None, count: int = 4) -> list[Comparison]:
    batches = torch.split(smooth_images(count, side, seed=1), 2)
    ties = tie_images(found.view, (3, side, side))
    return openvino_comparisons(found.view, graph or openvino_graph(found, side), batches, ties)


def assert_proved(found: Lowered, side: int) -> None:
    comparisons = climb(found, side)
    for comparison in comparisons:
        print(f"{comparison.name}: {comparison.compared:,} compared; {comparison.detail}")
    assert all(c.hard and c.passed and c.mismatches == 0 and c.compared > 0 for c in comparisons)
    count = OpenVinoBackend(openvino_graph(found, side).content).integer_count()
    assert count.integer == len(found.plan.layers)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_every_pattern_is_exact_and_every_layer_runs_on_integers(bits: int) -> None:
    assert_proved(small_for_openvino(bits), SIDE)


@pytest.mark.parametrize("network", TINY, ids=lambda network: network.name)
def test_tiny_transformers_and_mobilenets_are_exact(network: Network) -> None:
    pytest.importorskip("timm", reason="needs the extra vit")
    assert_proved(lowered_for_openvino(network.build(), 4, network.side), network.side)


# The fewest and the most bits; those between take the same way, and are slow.
# Slow: between the ends nothing else happens.
@pytest.mark.parametrize("bits", [2, *(pytest.param(bits, marks=pytest.mark.slow) for bits in (4, 6)), 8])
def test_codes_that_a_convolution_and_a_sum_read_are_exact(bits: int) -> None:
    found = lowered_for_openvino(Shortcut(CLASSES), bits, SIDE)
    assert OpenVinoProbe(openvino_graph(found, SIDE)).summed == ("relu.codes", "relu_1.codes")
    assert_proved(found, SIDE)


@pytest.mark.slow  # networks of full size, for minutes
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2", "vit_micro"])
def test_whole_networks_are_exact(name: str, bits: int) -> None:
    pytest.importorskip("timm", reason="needs the extra vit")
    side = 32 if name == "vit_micro" else 64
    assert_proved(built_in_for_openvino(name, bits, side), side)


def test_a_plan_for_tensorrt_too_is_exact_although_its_sums_add_codes() -> None:
    assert_proved(small_for_openvino(4, ("openvino", "tensorrt")), SIDE)


def test_codes_of_attention_are_exact_although_openvino_multiplies_them_in_float() -> None:
    pytest.importorskip("timm", reason="needs the extra vit")
    transformer = TINY[0]
    found = lowered_for_openvino(transformer.build(), 4, transformer.side, ("onnxruntime", "openvino"))
    assert found.plan.products
    assert_proved(found, transformer.side)


def test_a_quantizer_that_openvino_drops_is_found_in_its_list_of_kernels() -> None:
    """A plan for ONNX Runtime, which rule OV001 refuses: beside its codes OpenVINO keeps all quantizers."""
    found = small_for_openvino(4, ("onnxruntime",))
    comparisons = climb(found, SIDE)
    assert comparisons[CODES].passed and comparisons[SUMS].passed
    assert not comparisons[KEPT].passed and comparisons[KEPT].hard
    assert "branch_2.codes" in comparisons[KEPT].detail


def edited(graph: OnnxGraph, change: Callable[[dict[str, np.ndarray]], None]) -> OnnxGraph:
    """The graph with other constants, changed in place by name."""
    model = onnx.load_from_string(graph.content)
    arrays = {tensor.name: np.array(numpy_helper.to_array(tensor)) for tensor in model.graph.initializer}
    before = {name: array.copy() for name, array in arrays.items()}
    change(arrays)
    for tensor in model.graph.initializer:
        if not np.array_equal(arrays[tensor.name], before[tensor.name]):
            tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name], tensor.name))
    return read_onnx(model.SerializeToString())


def one_bias_up(arrays: dict[str, np.ndarray]) -> None:
    arrays["branch.1.bias"][3] += 1


def one_weight_negated(arrays: dict[str, np.ndarray]) -> None:
    codes = arrays["stem.0.weight"]
    place = np.unravel_index(np.abs(codes).argmax(), codes.shape)
    codes[place] = -codes[place]


@pytest.mark.parametrize("change", [one_bias_up, one_weight_negated])
def test_one_wrong_number_shows_in_the_sums_of_its_layer(
    change: Callable[[dict[str, np.ndarray]], None],
) -> None:
    found = small_for_openvino()
    wrong = edited(openvino_graph(found, SIDE), change)
    comparison = climb(found, SIDE, wrong)[SUMS]
    layer = "branch.1" if change is one_bias_up else "stem.0"
    assert not comparison.passed
    assert [tensor.name for tensor in comparison.tensors if tensor.mismatches] == [layer]


def test_a_larger_scale_shows_in_the_codes() -> None:
    def widen(arrays: dict[str, np.ndarray]) -> None:
        arrays["quantizers.relu.scale"] *= np.float32(1.01)

    found = small_for_openvino()
    comparison = climb(found, SIDE, edited(openvino_graph(found, SIDE), widen))[CODES]
    assert not comparison.passed and "relu.codes" in comparison.detail


def test_sums_come_back_as_integers_of_every_layer_in_graph_order() -> None:
    found = small_for_openvino()
    probe = OpenVinoProbe(openvino_graph(found, SIDE))
    images = smooth_images(2, SIDE, seed=1).numpy()
    sums = probe.sums(probe.observe(images).codes)
    assert list(sums)[:4] == ["stem.0", "branch.0.0", "branch.1", "shortcut.0"]
    layer = found.view.get_submodule("branch.1")
    assert isinstance(layer, IntegerConv2d) and layer.bias_scale is not None
    units = sums["branch.1"] / layer.bias_scale.numpy().reshape(-1, 1, 1)
    np.testing.assert_allclose(units, np.round(units), atol=1e-2)


def test_a_wrong_scale_of_a_shortcut_shows_in_the_codes_of_its_sum() -> None:
    def widen(arrays: dict[str, np.ndarray]) -> None:
        arrays["quantizers.shortcut_1.scale"] *= np.float32(1.01)

    found = small_for_openvino()
    comparison = climb(found, SIDE, edited(openvino_graph(found, SIDE), widen))[KERNELS]
    assert not comparison.passed and comparison.hard and "relu.codes" in comparison.detail


def test_logits_are_those_behind_codes_of_sums_wherever_these_begin() -> None:
    found = lowered_for_openvino(Shortcut(CLASSES), 4, SIDE)
    probe, images = OpenVinoProbe(openvino_graph(found, SIDE)), smooth_images(5, SIDE, seed=1).numpy()
    assert len(probe.summed) == 2
    wrong = {name: np.zeros_like(codes) for name, codes in probe.observe(images).codes.items()}
    np.testing.assert_array_equal(probe.logits_behind_sums(images, wrong), probe.logits(images))


@pytest.mark.parametrize("placement", ["deploy", "paper"])
def test_one_logit_that_only_the_graph_as_it_ships_computes_otherwise_is_found(
    placement: Literal["deploy", "paper"], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = lowered_for_openvino(Small(), 4, SIDE, quant=policy(4, 4, placement=placement))
    as_it_ships = OpenVinoProbe.logits

    def one_off(probe: OpenVinoProbe, images: np.ndarray) -> np.ndarray:
        logits = as_it_ships(probe, images)
        logits[0, 1] = np.nextafter(logits[0, 1], np.float32(np.inf))
        return logits

    monkeypatch.setattr(OpenVinoProbe, "logits", one_off)
    comparison = climb(found, SIDE)[SHIPPED]
    assert not comparison.passed and comparison.hard and comparison.detail.startswith("first at logits")


def test_watching_codes_changes_no_logit_where_sums_have_no_codes() -> None:
    found = lowered_for_openvino(Small(), 4, SIDE, quant=policy(4, 4, placement="paper"))
    probe = OpenVinoProbe(openvino_graph(found, SIDE))
    assert not probe.summed
    images = smooth_images(5, SIDE, seed=1).numpy()
    np.testing.assert_array_equal(probe.logits(images), probe.observe(images).logits)
