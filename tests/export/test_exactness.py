"""The promise itself: the exported integers compute, code for code, what the integer reference computes."""

from pathlib import Path

import numpy as np
import onnx
import onnx.reference
import openvino
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor

from saq_qat.models.build import build_model
from saq_qat.recipe.schema import Model
from saq_qat_export.graph.onnx_graph import INPUT, OUTPUT, OnnxGraph
from saq_qat_export.proof.codes import code_comparisons, tie_images
from saq_qat_export.proof.probe import Probe, with_code_outputs
from saq_qat_export.reference.deploy_view import run_reference
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend
from tests.export.networks import CLASSES, SIDE, Lowered, built_in, lower, policy, small, smooth_images
from tests.export.onnx_models import Array, session
from tests.export.photos import photos

BITS = [(4, 4), (2, 2), (3, 3), (4, 8), (8, 8)]
SIDES = {"resnet20": 32, "resnet18": 64, "mobilenet_v2": 64, "resnet50": 64}


def assert_exact(found: Lowered, images: Tensor) -> None:
    """No code of the reference differs, on images or on ties, and the deploy view in float64 agrees too."""
    shape = tuple(int(n) for n in images.shape[1:])
    ties = tie_images(found.view, (shape[0], shape[1], shape[2]))
    reference, double, single = code_comparisons(found.view, found.graph, torch.split(images, 2), ties)
    for comparison in (reference, double, single):
        print(
            f"{comparison.name}: {comparison.compared:,} compared, {comparison.mismatches} differ; "
            f"{comparison.detail}"
        )
    assert (reference.mismatches, reference.passed) == (0, True), reference.detail
    assert (double.mismatches, double.passed) == (0, True), double.detail
    assert single.passed, single.detail
    assert reference.compared > images[0].numel()
    logits = session(found.graph.content).run([OUTPUT], {INPUT: images.numpy()})[0]
    np.testing.assert_array_equal(logits, run_reference(found.view, images.numpy()).logits)


@pytest.mark.parametrize("bits", [(2, 2), (4, 4), (8, 8)], ids=str)
def test_every_pattern_is_exact(bits: tuple[int, int]) -> None:
    assert_exact(small(*bits), smooth_images(8, SIDE, seed=1))


@pytest.mark.parametrize(
    ("name", "bits", "side"),
    [
        ("resnet20", (4, 4), 32),
        ("preresnet20", (2, 2), 16),
        pytest.param("resnet18", (3, 3), 32, marks=pytest.mark.slow),  # as of the matrix below
    ],
)
def test_built_in_networks_are_exact(name: str, bits: tuple[int, int], side: int) -> None:
    assert_exact(built_in(name, *bits, side), smooth_images(4, side, seed=1))


@pytest.mark.slow  # every network at all bits; two of them are quick above
@pytest.mark.parametrize("bits", BITS, ids=lambda bits: f"W{bits[0]}A{bits[1]}")
@pytest.mark.parametrize("name", SIDES)
def test_the_whole_matrix_is_exact(name: str, bits: tuple[int, int]) -> None:
    side = SIDES[name]
    torch.manual_seed(0)
    found = lower(build_model(Model(name=name), CLASSES), policy(*bits), photos(16, side))
    assert_exact(found, photos(8, side, seed=1))
    assert_integer(found)


def assert_integer(found: Lowered) -> None:
    """Every convolution and linear layer runs on an integer kernel, also where codes are further outputs."""
    for content in (found.graph.content, with_code_outputs(found.graph)):
        kernels = OnnxRuntimeBackend(content).integer_count()
        assert kernels.integer == kernels.total == len(found.plan.layers), kernels.by_op


def test_every_product_runs_on_an_integer_kernel() -> None:
    assert_integer(small())
    assert_integer(built_in("resnet20", 4, 4, 32))


def test_sums_and_averages_run_on_integer_kernels(tmp_path: Path) -> None:
    session(small().graph.content, str(tmp_path / "optimized.onnx"))
    operators = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert operators.count("QLinearAdd") == 1
    assert operators.count("QLinearGlobalAveragePool") == 1
    assert "Relu" not in operators


def test_watching_codes_changes_no_logit() -> None:
    images = smooth_images(5, SIDE, seed=1).numpy()
    _, logits = Probe(small().graph).run(images)
    np.testing.assert_array_equal(logits, session(small().graph.content).run(None, {INPUT: images})[0])


def test_threads_change_no_code() -> None:
    images = smooth_images(5, SIDE, seed=1).numpy()
    codes, _ = Probe(small().graph).run(images)
    threaded, _ = Probe(small().graph, threads=2).run(images)
    for name, own in codes.items():
        np.testing.assert_array_equal(own, threaded[name])


def teacher_forced(graph: OnnxGraph) -> onnx.ModelProto:
    """The graph cut at its code tensors: each is an input, and what is computed is ``<name>.own``."""
    model = onnx.load_from_string(graph.content)
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            if name in graph.code_tensors:
                node.output[index] = f"{name}.own"
    for name in graph.code_tensors:
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.UINT8, None))
        model.graph.output.append(helper.make_tensor_value_info(f"{name}.own", TensorProto.UINT8, None))
    del model.graph.value_info[:]
    return model


def assert_specification_agrees(found: Lowered, images: Array) -> None:
    """ONNX's own evaluator computes the same codes from the engine's; it sums in float, so ties may part."""
    codes, _ = Probe(found.graph).run(images)
    evaluator = onnx.reference.ReferenceEvaluator(teacher_forced(found.graph))
    names = [f"{name}.own" for name in found.graph.code_tensors]
    own = evaluator.run(names, {INPUT: images, **codes})
    steps = [
        np.abs(np.asarray(a, np.int32) - codes[name].astype(np.int32))
        for name, a in zip(found.graph.code_tensors, own, strict=True)
    ]
    compared = sum(step.size for step in steps)
    differing = sum(int(np.count_nonzero(step)) for step in steps)
    print(f"ONNX reference evaluator: {compared:,} codes, {differing} differ")
    assert max(int(step.max()) for step in steps) <= 1
    assert differing <= 1e-5 * compared


def test_the_specification_gives_the_same_codes() -> None:
    assert_specification_agrees(small(), smooth_images(4, SIDE, seed=1).numpy())


@pytest.mark.slow  # the specification's evaluator is slow on a whole network
@pytest.mark.parametrize("bits", BITS, ids=lambda bits: f"W{bits[0]}A{bits[1]}")
def test_the_specification_gives_the_same_codes_for_a_whole_network(bits: tuple[int, int]) -> None:
    assert_specification_agrees(built_in("resnet20", *bits, 32), photos(4, 32, seed=1).numpy())


@pytest.mark.slow  # whole networks
@pytest.mark.parametrize("name", ["resnet20", "resnet18"])
def test_openvino_runs_every_convolution_in_8_bits(name: str) -> None:
    """Agreement is shown, not asserted: OpenVINO fuses residual sums and drops the branch's rounding."""
    found = built_in(name, 4, 4, SIDES[name])
    compiled = openvino.Core().compile_model(openvino.Core().read_model(found.graph.content), "CPU")
    nodes = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    layers = [n for n in nodes if n["layerType"].astype(str) == "Convolution"]
    precisions = {n["runtimePrecision"].astype(str) for n in layers}
    assert len(layers) == sum(layer.op == "conv" for layer in found.plan.layers)
    assert precisions <= {"u8", "i8"}
    images = photos(64, SIDES[name], seed=1).numpy()
    own = session(found.graph.content).run(None, {INPUT: images})[0].argmax(1)
    other = compiled(images)[0].argmax(1)
    print(
        f"OpenVINO: {len(layers)} convolutions in {precisions}, top-1 agrees on {(own == other).mean():.1%}"
    )
