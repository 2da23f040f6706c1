"""The baselines are the same network: without quantizers, and quantized again by another tool."""

import numpy as np
import pytest
import torch
from torch import Tensor, fx

from saq_qat.bench.baselines import float_form, float_onnx, static_int8_onnx
from saq_qat.quant.deploy.view import fold_batch_norm
from saq_qat.quant.network import calibrate, quantize
from saq_qat.quant.numerics.layers import QuantLayer
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend
from tests.report.networks import Tiny, small_recipe

SHAPE = (3, 8, 8)


def images(count: int) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def network() -> fx.GraphModule:
    """Quantized to 8 bits, so that taking the quantizers out changes little."""
    recipe = small_recipe("quant.weight.bits=8", "quant.activation.bits=8")
    torch.manual_seed(0)
    assert recipe.quant is not None
    quantized, _ = quantize(Tiny(10), recipe.quant, recipe.deploy.targets)
    calibrate(quantized, [images(64)])
    return quantized.eval()


def test_the_float_form_has_no_quantizer_and_computes_nearly_the_same(network: fx.GraphModule) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    plain = float_form(network, [images(64)])
    assert not [m for m in plain.modules() if isinstance(m, Quantizer | QuantLayer)]
    with torch.no_grad():
        expected, found = network(images(16)), plain(images(16))
    assert 0 < float((expected - found).abs().max()) < 0.1 * float(expected.abs().max())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_the_float_form_of_the_deploy_stage_keeps_folded_gains_and_biases(network: fx.GraphModule) -> None:
    expected = float_form(network, [images(64)])
    folded = float_form(fold_batch_norm(network), [images(64)])
    with torch.no_grad():
        difference = (expected(images(16)) - folded(images(16))).abs().max()
    assert float(difference) < 0.05


def test_the_float_graph_equals_the_float_network(network: fx.GraphModule) -> None:
    plain = float_form(network, [images(64)])
    backend = OnnxRuntimeBackend(float_onnx(plain, SHAPE), threads=1)
    assert backend.integer_count().integer == 0
    with torch.no_grad():
        expected = plain(images(5)).numpy()
    np.testing.assert_allclose(backend.run({"image": images(5).numpy()})["logits"], expected, atol=1e-4)


def test_static_int8_runs_on_integer_kernels_and_stays_near_the_float_network(
    network: fx.GraphModule,
) -> None:
    content = float_onnx(float_form(network, [images(64)]), SHAPE)
    static = OnnxRuntimeBackend(static_int8_onnx(content, [images(64).numpy()]), threads=1)
    count = static.integer_count()
    assert count.integer == count.total == 3
    batch = {"image": images(16).numpy()}
    expected = OnnxRuntimeBackend(content, threads=1).run(batch)["logits"]
    assert np.abs(static.run(batch)["logits"] - expected).max() < 0.1 * np.abs(expected).max()
