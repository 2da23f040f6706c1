"""How far an engine's logits of the golden images may lie from the integer reference's."""

import numpy as np
import pytest

from saq_qat.recipe.schema import Deploy
from saq_qat_export.bundle.golden import golden_codes, logits_tolerances
from saq_qat_export.graph.onnx_graph import export_onnx
from saq_qat_runtime.openvino import OpenVinoBackend
from tests.export.networks import SIDE, Lowered, smooth_images
from tests.export.openvino_networks import built_in_for_openvino, openvino_graph, small_for_openvino


def tolerances(found: Lowered, side: int, *targets: str) -> tuple[dict[str, float], float, float]:
    """By target; the largest logit; how far OpenVINO's logits are off."""
    images = smooth_images(2, side, seed=1).numpy()
    graph = export_onnx(found.view, (3, side, side), Deploy())
    _, logits = golden_codes(found.view, graph, images)
    seen = OpenVinoBackend(openvino_graph(found, side).content).run({"image": images})["logits"]
    allowed = logits_tolerances(targets, graph, images, logits)
    return allowed, float(np.abs(logits).max()), float(np.abs(seen - logits).max())


def test_each_target_that_ships_has_its_own() -> None:
    allowed, largest, _ = tolerances(small_for_openvino(), SIDE, "tensorrt", "onnxruntime")
    assert allowed == {"tensorrt": 0.1 * largest, "onnxruntime": 1e-5}


def test_openvino_may_be_off_by_what_a_code_moves_and_by_a_twentieth_in_any_case() -> None:
    allowed, largest, off = tolerances(small_for_openvino(), SIDE, "openvino")
    assert off <= 0.05 * largest <= allowed["openvino"]


@pytest.mark.slow  # a network of full size
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_a_network_that_has_learned_nothing_passes_its_self_test_on_openvino(name: str) -> None:
    allowed, largest, off = tolerances(built_in_for_openvino(name, 4, 64), 64, "openvino")
    print(f"{name}: largest {largest}, off {off}, allowed {allowed}")
    assert off <= allowed["openvino"]
