"""On OpenVINO a bundle is held against float32 there, and against what NNCF makes of the same network."""

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from saq_qat.bench.baselines import float_form, float_onnx
from saq_qat.bench.engines import FloatNetwork
from saq_qat.bench.openvino_baselines import NO_NNCF, openvino_baselines
from saq_qat.quant.network import calibrate, quantize
from saq_qat_runtime.bench.record import FLOAT_OPENVINO, NNCF_INT8
from tests.report.networks import Tiny, small_recipe

SHAPE = (3, 8, 8)


@pytest.fixture(scope="module")
def form() -> FloatNetwork:
    recipe = small_recipe("quant.weight.bits=8", "quant.activation.bits=8")
    torch.manual_seed(0)
    images = torch.randn(64, *SHAPE, generator=torch.Generator().manual_seed(1))
    assert recipe.quant is not None
    quantized, _ = quantize(Tiny(10), recipe.quant, recipe.deploy.targets)
    calibrate(quantized, [images])
    network = float_form(quantized.eval(), [images])
    return FloatNetwork(network, float_onnx(network, SHAPE), [images.numpy()])


def expected(form: FloatNetwork) -> Any:
    with torch.no_grad():
        return form.network(torch.from_numpy(form.calibration[0][:3])).numpy()


def test_without_nncf_float32_is_measured_alone_and_the_reason_said(
    form: FloatNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saq_qat.bench.openvino_baselines.find_spec", lambda _: None)
    (runner,), reasons = openvino_baselines(form, 1)
    assert reasons == (NO_NNCF,)
    assert runner.candidate.name == FLOAT_OPENVINO
    assert runner.candidate.integer is not None and runner.candidate.integer.integer == 0
    np.testing.assert_allclose(runner.run(form.calibration[0][:3]), expected(form), atol=1e-4)


def test_nncf_is_given_every_calibration_image_and_what_it_makes_is_run(
    form: FloatNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in that quantizes nothing: NNCF itself is no dependency."""
    asked: dict[str, Any] = {}

    def leave_as_it_is(model: Any, images: list[Any], **settings: Any) -> Any:
        asked.update(settings, images=images)
        return model

    stand_in = SimpleNamespace(quantize=leave_as_it_is, Dataset=list, __version__="0")
    monkeypatch.setitem(sys.modules, "nncf", stand_in)
    monkeypatch.setattr("saq_qat.bench.openvino_baselines.find_spec", lambda _: stand_in)
    runners, reasons = openvino_baselines(form, 1)
    assert reasons == ()
    assert [runner.candidate.name for runner in runners] == [FLOAT_OPENVINO, NNCF_INT8]
    assert asked["subset_size"] == len(asked["images"]) == 64
    assert asked["images"][0].shape == (1, *SHAPE)
    np.testing.assert_allclose(runners[1].run(form.calibration[0][:3]), expected(form), atol=1e-4)


def test_nncf_itself_makes_every_product_integer(form: FloatNetwork) -> None:
    pytest.importorskip("nncf", reason="measured in an environment that has it beside saq-qat")
    runner = openvino_baselines(form, 1)[0][1]
    assert runner.candidate.integer is not None
    assert runner.candidate.integer.integer == runner.candidate.integer.total == 3
    np.testing.assert_allclose(runner.run(form.calibration[0][:3]), expected(form), atol=0.2)
