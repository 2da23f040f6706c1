"""The published CIFAR networks: their files load under their own names, and compute what they should."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from saq_qat.models import build_model
from saq_qat.quant.deploy.view import deploy_view
from saq_qat.quant.network import calibrate, quantize
from saq_qat.recipe.schema import Deploy, Model, Quant

BLOCKS = {"resnet20": 3, "resnet32": 5, "resnet44": 7, "resnet56": 9}


def published(blocks: int, classes: int) -> dict[str, Tensor]:
    """Random numbers under the names and in the shapes of the published files."""
    generator = torch.Generator().manual_seed(blocks)
    weights: dict[str, Tensor] = {}

    def norm(path: str, channels: int) -> None:
        for key in ("weight", "running_var"):
            weights[f"{path}.{key}"] = torch.rand(channels, generator=generator) + 0.5
        for key in ("bias", "running_mean"):
            weights[f"{path}.{key}"] = torch.randn(channels, generator=generator)

    def conv(path: str, inputs: int, outputs: int) -> None:
        weights[f"{path}.weight"] = torch.randn(outputs, inputs, 3, 3, generator=generator) / 3

    conv("conv1", 3, 16)
    norm("bn1", 16)
    before = 16
    for stage, width in enumerate((16, 32, 64), 1):
        for block in range(blocks):
            path = f"layer{stage}.{block}"
            conv(f"{path}.conv1", before, width)
            norm(f"{path}.bn1", width)
            conv(f"{path}.conv2", width, width)
            norm(f"{path}.bn2", width)
            before = width
    weights["linear.weight"] = torch.randn(classes, 64, generator=generator)
    weights["linear.bias"] = torch.randn(classes, generator=generator)
    return weights


def logits_of(weights: dict[str, Tensor], blocks: int, x: Tensor) -> Tensor:
    """The network in functions of torch alone."""

    def conv_norm(conv: str, norm: str, x: Tensor, stride: int) -> Tensor:
        x = F.conv2d(x, weights[f"{conv}.weight"], stride=stride, padding=1)
        mean, var = weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"]
        return F.batch_norm(x, mean, var, weights[f"{norm}.weight"], weights[f"{norm}.bias"])

    x = conv_norm("conv1", "bn1", x, 1).relu()
    for stage in (1, 2, 3):
        for block in range(blocks):
            path, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            branch = conv_norm(f"{path}.conv1", f"{path}.bn1", x, stride).relu()
            branch = conv_norm(f"{path}.conv2", f"{path}.bn2", branch, 1)
            if stride == 2:
                shortcut = torch.zeros_like(branch)
                quarter = branch.shape[1] // 4
                shortcut[:, quarter:-quarter] = x[:, :, ::2, ::2]
                x = shortcut
            x = (branch + x).relu()
    return F.linear(x.mean((2, 3)), weights["linear.weight"], weights["linear.bias"])


@pytest.mark.parametrize("name", BLOCKS)
def test_a_published_file_loads_under_its_own_names(name: str, tmp_path: Path) -> None:
    weights = published(BLOCKS[name], 10)
    file = tmp_path / f"{name}.th"
    torch.save({"state_dict": {f"module.{key}": value for key, value in weights.items()}}, file)
    network = build_model(Model(name=f"{name}_option_a", pretrained=str(file)), 10).eval()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(
        network(images), logits_of(weights, BLOCKS[name], images), rtol=1e-4, atol=1e-4
    )


def test_what_it_computes_quantized_is_what_its_deploy_view_computes() -> None:
    network = build_model(Model(name="resnet20_option_a"), 10)
    quant = Quant.model_validate({"weight": {"bits": 4}, "activation": {"bits": 4}})
    quantized, _ = quantize(network, quant, ("onnxruntime",), image=(3, 32, 32))
    images = torch.randn(8, 3, 32, 32)
    calibrate(quantized, [images])
    with torch.no_grad():
        trained = quantized.eval()(images)
        deployed = deploy_view(quantized, Deploy())(images)
    assert float((trained - deployed).norm() / trained.norm()) < 0.1
