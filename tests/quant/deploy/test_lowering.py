"""Lowering: what each part of a quantized network becomes in its deploy view."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saq_qat.errors import ArtifactError
from saq_qat.quant.deploy.integer_modules import IntegerLayer, Quantize
from saq_qat.quant.deploy.view import deploy_view, fold_batch_norm
from saq_qat.quant.network import quantize
from saq_qat.quant.numerics.functional import codes
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.recipe.schema import ActivationQuantizer, Deploy, Override, Quant, WeightQuantizer
from tests.quant.exact import with_exact_scales, with_unrounded_biases
from tests.quant.networks import (
    TARGETS,
    Attention,
    Bottleneck,
    Residual,
    Swish,
    images,
    policy,
    quantized,
)

DEPLOY = Deploy()


class OneActivation(nn.Module):
    """A float value straight into an activation and a quantizer."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.stem, self.activation, self.conv = nn.Conv2d(3, 3, 1), activation, nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.activation(self.stem(x))).flatten(1)  # type: ignore[no-any-return]


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.ReLU6()])
@pytest.mark.parametrize("alpha", [0.3, 1.0, 5.9, 6.0, 6.2, 40.0, 200.0])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_an_activation_as_bounds_of_codes_equals_clipping_floats(
    activation: nn.Module, alpha: float, bits: int
) -> None:
    quant = policy(bits, edge_bits=bits)
    network, _ = quantized(OneActivation(activation), quant)
    quantizer = network.get_submodule("quantizers.activation")
    assert isinstance(quantizer, Quantizer)
    quantizer.alpha.data.fill_(alpha)
    view = deploy_view(network, DEPLOY)
    deployed = view.get_submodule("quantizers.activation")
    assert isinstance(deployed, Quantize)
    assert not [m for m in view.modules() if isinstance(m, nn.ReLU | nn.ReLU6)]
    ties = (torch.arange(-3, quantizer.grid.maximum + 4) + 0.5) * quantizer.scale
    points = torch.cat([ties, torch.tensor([0.0, -0.0, 6.0, 1e9, -1e9])])
    up, down = torch.full_like(points, torch.inf), torch.full_like(points, -torch.inf)
    x = torch.cat([points, points.nextafter(up), points.nextafter(down)])
    expected = codes(activation(x), quantizer.scale, quantizer.grid)
    assert deployed(x).tolist() == expected.tolist()


def test_a_relu_that_a_float_operation_reads_too_stays() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(F.silu(self.first(x)))
            return (self.second(x) * x).mean((2, 3))  # type: ignore[no-any-return]

    network = with_exact_scales(quantized(Both())[0])
    view = deploy_view(network, DEPLOY).double()
    assert "relu" in [node.name for node in view.graph.nodes]
    with_unrounded_biases(view, network)
    x = images().double()
    torch.testing.assert_close(view(x), network(x), rtol=1e-9, atol=1e-9)


def test_max_pooling_keeps_codes_as_they_are() -> None:
    network, _ = quantized(Residual())
    view = deploy_view(network, DEPLOY)
    seen: dict[str, Tensor] = {}
    for name in ("stem_relu", "pool"):
        view.get_submodule(f"quantizers.{name}").register_forward_hook(
            lambda module, inputs, output, name=name: seen.update({name: output})
        )
    view(images())
    assert torch.equal(seen["pool"].float(), F.max_pool2d(seen["stem_relu"].float(), 3, 2, 1))


def test_a_view_is_integers_in_buffers_and_leaves_the_network_alone() -> None:
    network, _ = quantized(Residual())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    view = deploy_view(network, DEPLOY)
    view(images())
    assert not list(view.parameters())
    assert not view.training
    dtypes = {name: value.dtype for name, value in view.state_dict().items()}
    assert dtypes["conv1.weight"] == torch.int8
    assert dtypes["conv1.bias"] == torch.int32
    assert dtypes["conv1.weight_scale"] == dtypes["quantizers.image.scale"] == torch.float32
    storages = {value.data_ptr() for value in network.state_dict().values()}
    assert not storages & {value.data_ptr() for value in view.state_dict().values()}
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_signed_codes_are_stored_with_a_zero_point() -> None:
    view = deploy_view(quantized(Residual())[0], DEPLOY)
    image, branch = (view.get_submodule(f"quantizers.{name}") for name in ("image", "bn2"))
    assert isinstance(image, Quantize) and isinstance(branch, Quantize)
    assert (image.minimum, image.maximum, image.zero_point) == (-128, 127, 128)
    assert (branch.zero_point, branch(torch.tensor([0.0])).item()) == (128, 128)


def test_a_layer_behind_a_float_input_keeps_a_float_bias() -> None:
    view = deploy_view(quantized(Residual(), policy(quantize_image=False))[0], DEPLOY)
    stem = view.get_submodule("stem")
    assert isinstance(stem, IntegerLayer)
    assert stem.bias_scale is None and stem.bias.dtype == torch.float32
    assert stem.weight.dtype == torch.int8


def test_a_batch_norm_that_nothing_absorbs_becomes_an_affine_map() -> None:
    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1)
            self.bn1d, self.fc = nn.BatchNorm1d(4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = torch.sigmoid(self.conv(self.bn(x)).mean((2, 3)))
            return self.fc(self.bn1d(x))  # type: ignore[no-any-return]

    network = with_exact_scales(quantized(Features())[0])
    view = with_unrounded_biases(deploy_view(network, DEPLOY).double(), network)
    x = images().double()
    torch.testing.assert_close(view(x), network(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["lsq", "symmetric"])
def test_other_kinds_have_a_view_too(kind: str) -> None:
    quant = policy(
        weight=WeightQuantizer(kind=kind, bits=4),  # type: ignore[arg-type]
        activation=ActivationQuantizer(kind=kind, bits=4),  # type: ignore[arg-type]
    )
    network = with_exact_scales(quantized(Residual(), quant)[0])
    view = with_unrounded_biases(deploy_view(network, DEPLOY).double(), network)
    x = images(16).double()
    torch.testing.assert_close(view(x), network(x), rtol=1e-9, atol=1e-9)


def test_narrower_codes_of_an_already_quantized_tensor_survive() -> None:
    quant = policy(overrides=(Override(match="shortcut", activation_bits=2),))
    network = with_exact_scales(quantized(Residual(), quant)[0])
    view = with_unrounded_biases(deploy_view(network, DEPLOY).double(), network)
    x = images(16).double()
    torch.testing.assert_close(view(x), network(x), rtol=1e-9, atol=1e-9)


def test_a_network_that_was_never_calibrated_has_no_view() -> None:
    network, _ = quantize(Residual(), policy(), TARGETS)
    with pytest.raises(ArtifactError, match=r"'quantizers\.image' was never initialised"):
        deploy_view(network, DEPLOY)


def with_offsets(kind: str, offset: str) -> Quant:
    return policy(activation=ActivationQuantizer(kind=kind, bits=4, offset=offset))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["saq", "lsq"])
@pytest.mark.parametrize(
    ("model", "offset"), [(Bottleneck, "signed"), (Attention, "bounded"), (Swish, "bounded")]
)
def test_offsets_move_into_biases_without_a_trace(model: type[nn.Module], kind: str, offset: str) -> None:
    network, plan = quantized(model(), with_offsets(kind, offset))
    assert any(tensor.offset for tensor in plan.tensors)
    network = with_exact_scales(network)
    view = with_unrounded_biases(deploy_view(network, DEPLOY).double(), network)
    x = images(16).double()
    torch.testing.assert_close(view(x), network(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("model", "offset"), [(Bottleneck, "signed"), (Attention, "bounded"), (Swish, "bounded")]
)
def test_the_deploy_stage_rounds_biases_with_their_offsets(model: type[nn.Module], offset: str) -> None:
    network = with_exact_scales(quantized(model(), with_offsets("saq", offset))[0])
    folded = fold_batch_norm(copy.deepcopy(network)).eval()
    x = images(16).double()
    torch.testing.assert_close(deploy_view(network, DEPLOY).double()(x), folded(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("place", [0.1, 0.0, -0.3, -1.0, -1.2])
def test_padding_is_the_code_of_zero_wherever_the_offset_lies(place: float) -> None:
    """Also where the grid does not reach zero: then it is the code next to zero."""
    network = quantized(Swish(), with_offsets("saq", "bounded"))[0]
    quantizer = network.get_submodule("quantizers.act")
    assert isinstance(quantizer, Quantizer) and quantizer.beta is not None
    quantizer.beta.data.copy_(quantizer.alpha.data * place)
    network = with_exact_scales(network)
    view = deploy_view(network, DEPLOY).double()
    deployed = view.get_submodule("quantizers.act")
    assert isinstance(deployed, Quantize)
    assert (deployed.minimum + deployed.zero_point, deployed.maximum + deployed.zero_point) == (0, 15)
    assert deployed.zero_point == min(max(-round(15 * place), 0), 15)
    folded = fold_batch_norm(copy.deepcopy(network))
    x = images(16).double()
    torch.testing.assert_close(view(x), folded(x), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(with_unrounded_biases(view, network)(x), network(x), rtol=1e-9, atol=1e-9)


def test_second_operands_of_products_are_stored_as_int8() -> None:
    network, plan = quantized(Attention())
    view = deploy_view(network, DEPLOY)
    operands = [view.get_submodule(f"quantizers.{t.name}") for t in plan.tensors if t.role == "operand"]
    assert sorted(str(module.stored) for module in operands) == ["int8", "int8", "uint8", "uint8"]
    x = images(4)
    torch.testing.assert_close(view(x), network(x), rtol=0.2, atol=0.2)
