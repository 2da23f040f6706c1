"""The proof fails where it must: one wrong integer anywhere in the graph, named by tensor."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from saq_qat.quant.deploy.integer_modules import Quantize
from saq_qat.recipe.schema import Deploy, Thresholds
from saq_qat_export.graph.onnx_graph import OnnxGraph
from saq_qat_export.proof.codes import code_comparisons, tie_images
from saq_qat_export.proof.comparison import Comparison
from saq_qat_export.proof.predictions import agree, agreement_comparisons
from saq_qat_export.proof.probe import Probe
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend
from tests.export.networks import SIDE, Small, lower, policy, small, smooth_images
from tests.export.onnx_models import Array

SHAPE = (3, SIDE, SIDE)


def comparisons(graph: OnnxGraph, count: int = 8) -> list[Comparison]:
    view = small(pack_weights=False).view
    return code_comparisons(view, graph, [smooth_images(count, SIDE, seed=1)], tie_images(view, SHAPE))


def changed(name: str, change: Callable[[Array], None]) -> OnnxGraph:
    """The small network with one constant changed in place."""
    graph = small(pack_weights=False).graph
    model = onnx.load_from_string(graph.content)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    values = numpy_helper.to_array(tensors[name]).copy()
    change(values)
    tensors[name].CopyFrom(numpy_helper.from_array(values, name))
    return OnnxGraph(model.SerializeToString(), graph.code_tensors)


def initializer(prefix: str, argument: int, op: str) -> str:
    """Name of a constant input of the first ``op`` whose first input starts with ``prefix``."""
    model = onnx.load_from_string(small(pack_weights=False).graph.content)
    node = next(n for n in model.graph.node if n.op_type == op and n.input[0].startswith(prefix))
    return str(node.input[argument])


def add_one(values: Array) -> None:
    values.reshape(-1)[0] += 1


def next_float(values: Array) -> None:
    values[...] = np.nextafter(values, np.float32(np.inf))


def a_thousandth(values: Array) -> None:
    values *= np.float32(1.001)


def one_lower(values: Array) -> None:
    values -= 1


def test_the_untouched_graph_passes() -> None:
    assert all(comparison.passed for comparison in comparisons(small(pack_weights=False).graph))


@pytest.mark.parametrize(
    ("prefix", "argument", "op", "change", "tensor"),
    [
        ("stem.0.weight", 0, "DequantizeLinear", add_one, "stem_2"),
        ("branch.1.weight", 0, "DequantizeLinear", add_one, "branch_2"),
        ("shortcut.0.bias", 0, "DequantizeLinear", add_one, "shortcut_1"),
        ("branch.0.0.weight", 1, "DequantizeLinear", a_thousandth, "branch_0_2"),
        ("image.codes", 1, "DequantizeLinear", a_thousandth, "image"),
        ("stem_2.unclipped", 2, "Clip", one_lower, "stem_2"),
    ],
)
def test_one_wrong_integer_fails_the_hard_comparisons_and_is_named(
    prefix: str, argument: int, op: str, change: Callable[[Array], None], tensor: str
) -> None:
    reference, double, _ = comparisons(changed(initializer(prefix, argument, op), change), 32)
    assert not reference.passed
    assert reference.detail.startswith(f"first at {tensor}.codes: ")
    assert not double.passed


def test_a_scale_wrong_in_its_last_bit_fails_on_images_made_of_ties() -> None:
    model = onnx.load_from_string(small(pack_weights=False).graph.content)
    quantize = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    reference, _, _ = comparisons(changed(quantize.input[1], next_float))
    assert not reference.passed
    assert reference.detail.startswith("first at image.codes: ")


def test_tie_images_hold_exact_ties_their_neighbours_and_saturation() -> None:
    view = small().view
    scale = next(m.scale for m in view.modules() if isinstance(m, Quantize))
    images = tie_images(view, SHAPE)
    assert images.shape == (2, *SHAPE)
    steps = images / scale
    exact = (steps - steps.floor() == 0.5).float().mean()
    assert exact > 0.25
    assert steps.abs().max() > 255
    assert (images == 0).any()
    assert torch.equal(images, tie_images(view, SHAPE))


def test_agreement_counts_lists_and_judges_flips() -> None:
    found = small()
    images = smooth_images(12, SIDE, seed=4)
    truth = found.view(images).argmax(1)
    backend = OnnxRuntimeBackend(found.graph.content)

    def engine(batch: Array) -> Array:
        return backend.run({"image": batch})["logits"]

    batches = [(images[:7], truth[:7]), (images[7:], truth[7:])]
    agreement = agree(found.network, found.view, engine, batches)
    assert (agreement.images, agreement.view_top1, agreement.engine_top1) == (12, 100.0, 100.0)
    assert agreement.view_flips == 0

    wrong = agree(found.network, found.view, lambda batch: -engine(batch), batches)
    assert wrong.view_flips == 12
    assert wrong.listed[0].label == int(truth[0])
    assert [flip.index for flip in wrong.listed] == sorted(flip.index for flip in wrong.listed)
    of_view, of_network = agreement_comparisons(wrong, Thresholds())
    assert not of_view.passed
    assert not of_network.passed
    assert not of_view.hard
    assert of_network.hard


@pytest.mark.parametrize("settings", [{"placement": "paper"}, {"quantize_image": False}], ids=str)
def test_networks_with_float_parts_are_proved_and_not_called_integer(settings: dict[str, object]) -> None:
    """Codes behind a float convolution may differ by one step, rarely; the count of kernels tells."""
    torch.manual_seed(0)
    found = lower(Small(), policy(4, 4, **settings), smooth_images(16, SIDE), Deploy())
    images = [smooth_images(8, SIDE, seed=1)]
    reference, double, _ = code_comparisons(found.view, found.graph, images, tie_images(found.view, SHAPE))
    assert reference.passed, reference.detail
    assert double.passed, double.detail
    kernels = OnnxRuntimeBackend(found.graph.content).integer_count()
    assert sum(layer.integer for layer in found.plan.layers) <= kernels.integer < kernels.total
    assert "partly integer" in kernels.label
    assert Probe(found.graph).run(images[0].numpy())[0].keys() == set(found.graph.code_tensors)
