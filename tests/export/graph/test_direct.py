"""What is written from the view itself is what torch.onnx writes, byte for byte."""

from functools import cache

import pytest
import torch
from torch import fx

from saq_qat.quant.deploy.view import deploy_view
from saq_qat.recipe.schema import Deploy, TensorRt
from saq_qat_export.graph import direct, onnx_graph
from saq_qat_export.graph.onnx_graph import export_graph
from saq_qat_export.graph.targets import GRAPH_TARGETS
from tests.export.cases import TINY
from tests.export.networks import SIDE, built_in, lower, policy, quantized, small, smooth_images
from tests.export.proof.numbers import LoneNorms

FLOAT16 = Deploy(tensorrt=TensorRt(precision="float16"))
UNPACKED = Deploy(pack_weights=False)


@cache
def bottlenecks() -> fx.GraphModule:
    torch.manual_seed(0)
    return lower(TINY[1].build(), policy(4, 4), smooth_images(2, TINY[1].side)).view


CASES = [
    ("small", lambda: small(4, 4).view, SIDE, Deploy()),
    ("bottlenecks", bottlenecks, TINY[1].side, Deploy()),
    ("small, 2 bits", lambda: small(2, 2).view, SIDE, UNPACKED),
    ("small, 8 bits", lambda: small(8, 8).view, SIDE, FLOAT16),
    ("resnet18", lambda: built_in("resnet18", 4, 4, 32).view, 32, Deploy()),
]


def content(view: fx.GraphModule, side: int, target: str, deploy: Deploy) -> bytes:
    return export_graph(view, (3, side, side), target, deploy).content


# Each target and each setting once; torch, which writes every graph again, takes seconds for each.
QUICK = {
    ("small", "onnxruntime"),
    ("small, 2 bits", "onnxruntime"),
    ("small, 8 bits", "tensorrt"),
    ("bottlenecks", "tensorrt"),
}


@pytest.mark.parametrize(
    ("view", "side", "deploy", "target"),
    [
        # Slow: seconds for each, and operations that the quick ones have too.
        pytest.param(
            *case, target, id=f"{name}-{target}", marks=() if (name, target) in QUICK else pytest.mark.slow
        )
        for name, *case in CASES
        for target in ("onnxruntime", "tensorrt")
    ],
)
def test_two_ways_to_write_a_network_give_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch, view: object, side: int, deploy: Deploy, target: str
) -> None:
    assert callable(view)
    network = view()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("saq_qat_export.graph.traced.export_by_torch", None)
        written = content(network, side, target, deploy)
    monkeypatch.setattr(onnx_graph, "write_directly", lambda *_: None)
    assert written == content(network, side, target, deploy)


def test_an_operation_that_is_not_written_here_is_left_to_torch() -> None:
    torch.manual_seed(0)
    network, _ = quantized(LoneNorms(), policy(4, 4), smooth_images(2, SIDE))
    view = deploy_view(network, Deploy())
    row = GRAPH_TARGETS["onnxruntime"]
    image = onnx_graph.image_input((3, SIDE, SIDE))
    assert direct.write_directly(view, image, "logits", row.opset, row.patterns) is None
    assert content(view, SIDE, "onnxruntime", Deploy())
