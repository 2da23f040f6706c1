"""Networks with all that a file's numbers come from, their checkpoints, and files with one number changed."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from saq_qat.quant.deploy.recorded import fill_records, plan_records
from saq_qat.quant.deploy.view import deploy_view, fold_batch_norm
from saq_qat.quant.plan.records import records_from_json, records_to_json
from saq_qat.recipe.schema import ActivationQuantizer, Deploy, Override, TensorRt, WeightQuantizer
from saq_qat_export.graph.onnx_graph import export_tensorrt
from saq_qat_export.proof.numbers.trained import Trained
from tests.export.cases import TINY
from tests.export.networks import Lowered, Small, policy, quantized, smooth_images
from tests.export.onnx_models import Array
from tests.quant.networks import Attention, Swish

__all__ = ["CASES", "TARGETS", "Case", "LoneNorms", "changed", "file_of", "trained_of"]

TARGETS = ("onnxruntime", "tensorrt", "tensorrt int8", "tensorrt float16")
_BOTH = ("onnxruntime", "tensorrt")


class LoneNorms(nn.Module):
    """BatchNorms that no layer absorbs, and a parameter of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.last, self.plain = nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6)
        self.level = nn.Parameter(torch.linspace(0.5, 1.5, 6).reshape(1, 6, 1, 1))
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(torch.sigmoid(self.conv(x))) * self.level
        x = self.plain(torch.sigmoid(self.last(x)))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class Clamped(nn.Module):
    """Clips of the network's own before quantizers, which exporters make one with those of the codes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.conv(x).clamp(-0.3, 0.4)).clamp(min=0.05)
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


@dataclass(frozen=True)
class Case:
    """A network and how it is quantized.

    Attributes:
        last: its last layer, where step sizes would count to 255, which TensorRT has no codes for.
    """

    name: str
    build: Callable[[], nn.Module]
    side: int = 16
    weight: tuple[int, str] = (4, "saq")
    activation: tuple[int, str, str] = (4, "saq", "none")
    normalize: bool | None = None
    deploy: bool = False
    last: str = ""

    def __str__(self) -> str:
        return self.name


CASES = (
    Case("cnn-w2", Small, weight=(2, "saq")),
    Case("cnn-w4", Small),
    Case("cnn-w8", Small, weight=(8, "saq"), activation=(8, "saq", "none")),
    Case("cnn-without-normalisation", Small, normalize=False),
    Case("cnn-deploy-stage", Small, deploy=True),
    Case("cnn-dorefa-pact", Small, weight=(4, "dorefa"), activation=(4, "pact", "none")),
    Case("lone-norms", LoneNorms),
    Case("clamped", Clamped),
    Case("clamped-w8", Clamped, weight=(8, "saq"), activation=(8, "saq", "none")),
    Case("mobilenet", TINY[1].build, weight=(4, "lsq"), activation=(4, "lsq", "none"), last="classifier.*"),
    Case("offsets", Swish, 8, weight=(4, "lsq"), activation=(4, "lsq", "bounded"), last="last"),
    Case("offsets-deploy-stage", Swish, 8, activation=(4, "saq", "bounded"), deploy=True),
    Case("attention", Attention, 8, weight=(4, "lsq"), activation=(4, "lsq", "bounded"), last="head"),
    Case("vit", TINY[0].build, weight=(3, "lsq"), activation=(4, "lsq", "bounded"), last="head"),
)


@cache
def lowered(case: Case) -> Lowered:
    """Quantized for both targets, disturbed and calibrated; made once for all tests of a process."""
    if case.name == "vit":
        pytest.importorskip("timm", reason="needs the extra vit")
    torch.manual_seed(0)
    bits, kind, offset = case.activation
    quant = policy(
        case.weight[0],
        bits,
        weight=WeightQuantizer.model_validate({"bits": case.weight[0], "kind": case.weight[1]}),
        activation=ActivationQuantizer.model_validate({"bits": bits, "kind": kind, "offset": offset}),
        normalize_weights=case.normalize,
        overrides=(Override(match=case.last, activation_kind="saq"),) if case.last else (),
    )
    images = smooth_images(8, case.side)
    network, plan = quantized(case.build(), quant, images, targets=_BOTH)
    if case.deploy:
        fold_batch_norm(network)
        for name, parameter in network.named_parameters():
            if name.endswith(".bias"):  # learned further: on no grid any more
                parameter.data += 0.01 * torch.randn(parameter.shape)
    return Lowered(network, plan, deploy_view(network, Deploy()), images)


@cache
def trained_of(case: Case) -> Trained:
    """The checkpoint's records and tensors, the records having been JSON."""
    found = lowered(case)
    records = fill_records(plan_records(found.network, found.plan, refine_bias=True), found.network)
    tensors = {name: tensor.detach().numpy() for name, tensor in found.network.state_dict().items()}
    return Trained(records_from_json(records_to_json(records), "records"), tensors)


@cache
def file_of(case: Case, target: str) -> bytes:
    """The ONNX file for a target."""
    found = lowered(case)
    if target == "onnxruntime":
        return found.graph.content
    settings = TensorRt(
        attention="int8" if target == "tensorrt int8" else "float",
        precision="float16" if target == "tensorrt float16" else "float32",
    )
    return export_tensorrt(found.view, (3, case.side, case.side), settings).content


def changed(content: bytes, name: str, change: Callable[[Array], None]) -> bytes:
    """The file with one initializer changed in place; four-bit ones as bytes of two numbers."""
    model = onnx.load_from_string(content)
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    if tensor.data_type == onnx.TensorProto.UINT4:
        raw = np.frombuffer(tensor.raw_data, np.uint8).copy()
        change(raw)
        tensor.raw_data = raw.tobytes()
    else:
        values = numpy_helper.to_array(tensor).copy()
        change(values)
        tensor.CopyFrom(numpy_helper.from_array(values, name))
    return bytes(model.SerializeToString())
