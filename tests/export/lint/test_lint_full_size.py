"""Networks of torchvision, quantized by ONNX Runtime's tool: as TensorRT wants it, and by default."""

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

from saq_qat.quant.plan.plan import Finding
from saq_qat_export.lint import LintSettings, batch_profiles, lint_model, read_model

pytestmark = pytest.mark.slow  # networks of full size

SYMMETRIC = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
INT8 = {"activation_type": quantization.QuantType.QInt8, "weight_type": quantization.QuantType.QInt8}
FOR_TENSORRT = {
    **INT8,
    "per_channel": True,
    "op_types_to_quantize": ["Conv", "Gemm", "Add"],
    "extra_options": {**SYMMETRIC, "OpTypesToExcludeOutputQuantization": ["Conv", "Gemm"]},
}


class Images(quantization.CalibrationDataReader):  # type: ignore[misc]  # a base without types
    def __init__(self) -> None:
        noise = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
        self.images: Iterator[dict[str, Any]] = iter([{"image": noise}])

    def get_next(self) -> dict[str, Any] | None:
        return next(self.images, None)


@pytest.fixture(scope="module", params=["resnet18", "mobilenet_v2"])
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    model = torchvision.models.get_model(request.param, weights=None).eval()
    exported = folder / "exported.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, about itself
        torch.onnx.export(
            model,
            (torch.zeros(2, 3, 64, 64),),
            exported,
            dynamo=True,
            opset_version=19,
            external_data=False,
            verbose=False,
            input_names=["image"],
            dynamic_shapes=({0: torch.export.Dim("N")},),
        )
        quant_pre_process(exported, folder / "float.onnx")
    return folder / "float.onnx"


def quantized(network: Path, **options: Any) -> tuple[Finding, ...]:
    path = network.with_name("quantized.onnx")
    logging.disable(logging.WARNING)
    quantization.quantize_static(network, path, Images(), **options)
    logging.disable(logging.NOTSET)
    model = read_model(path)
    return lint_model(model, LintSettings(batch_profiles(model, 1, 8, 32)))


def test_symmetric_int8_per_channel_with_float_biases_has_no_errors(network: Path) -> None:
    found = quantized(network, **FOR_TENSORRT)
    assert {f.rule for f in found if f.level == "warning"} == {"TRT114"}
    assert [f.rule for f in found if f.level != "warning"] == ["TRT116"]


def test_pairs_before_activations_are_warnings(network: Path) -> None:
    found = quantized(network, **INT8, per_channel=True, extra_options=SYMMETRIC)
    assert not [f for f in found if f.level == "error"]
    assert {f.rule for f in found if f.level == "warning"} & {"TRT112", "TRT113"}


def test_the_defaults_cannot_run(network: Path) -> None:
    assert "TRT003" in {f.rule for f in quantized(network) if f.level == "error"}
    found = quantized(network, activation_type=quantization.QuantType.QUInt8)
    assert {"TRT002", "TRT003"} <= {f.rule for f in found if f.level == "error"}


def test_integer_operators_cannot_run(network: Path) -> None:
    found = quantized(network, quant_format=quantization.QuantFormat.QOperator)
    products = sum(f.rule == "TRT012" and "QLinearConv" in f.message for f in found)
    assert products == (20 if "resnet18" in str(network) else 52)


def test_the_float_network_has_no_findings(network: Path) -> None:
    model = read_model(network)
    assert lint_model(model, LintSettings(batch_profiles(model, 1, 8, 32))) == ()
