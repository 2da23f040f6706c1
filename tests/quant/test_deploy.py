"""The deploy stage and the deploy view: the same network, with its integers in place."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from saq_qat.errors import ArtifactError
from saq_qat.models.build import build_model
from saq_qat.quant.deploy import deploy_view, fold_batch_norm
from saq_qat.quant.fold import batch_norm_affine
from saq_qat.quant.functional import codes
from saq_qat.quant.integer_modules import IntegerLayer, Quantize
from saq_qat.quant.layers import QuantLayer, quant_layers
from saq_qat.quant.network import quantize
from saq_qat.quant.quantizer import Quantizer
from saq_qat.recipe.schema import ActivationQuantizer, Deploy, Model, Override, WeightQuantizer
from tests.quant.networks import (
    TARGETS,
    BranchAndConcat,
    Gated,
    NoNorm,
    Residual,
    images,
    policy,
    quantized,
)

DEPLOY = Deploy()


def relu6_residual() -> nn.Module:
    return Residual(nn.ReLU6)


def cifar_network() -> nn.Module:
    return build_model(Model(name="preresnet20"), 10)


NETWORKS = [Residual, relu6_residual, BranchAndConcat, Gated, NoNorm]


def few_bits(x: Tensor, bits: int = 6) -> Tensor:
    """Rounded to ``bits`` binary digits, so that products of a few such numbers are exact in float32."""
    mantissa, exponent = torch.frexp(x)
    return torch.ldexp((mantissa * 2**bits).round() / 2**bits, exponent)


def with_exact_scales(network: fx.GraphModule) -> fx.GraphModule:
    """A float64 copy whose scales and gains are short binary numbers, exact in float32 too."""
    network = copy.deepcopy(network).double()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, Quantizer):
                module.alpha.copy_(few_bits(module.scale) * module.grid.unit)
            if isinstance(module, nn.BatchNorm2d):
                gain, _ = batch_norm_affine(module)
                module.weight.copy_(module.weight * few_bits(gain) / gain)
            if isinstance(module, QuantLayer):
                module.normalize = module.rescale_std = False
                if module.channel_gain is not None:
                    module.channel_gain.copy_(few_bits(module.channel_gain))
    return network


def exact_bias(layer: QuantLayer, norm: nn.Module | None) -> Tensor:
    """Bias of a layer and its BatchNorm in float64, rounded nowhere."""
    own = (
        torch.zeros(layer.weight.shape[0], dtype=torch.float64) if layer.bias is None else layer.bias.detach()
    )
    if norm is None:
        return own
    gain, shift = batch_norm_affine(norm)
    return own * gain + shift


def batch_norm_of(network: fx.GraphModule, name: str) -> nn.Module | None:
    node = next(node for node in network.graph.nodes if node.target == name)
    reader = next(iter(node.users))
    module = network.get_submodule(str(reader.target)) if reader.op == "call_module" else None
    return module if isinstance(module, nn.BatchNorm2d) else None


def with_unrounded_biases(view: fx.GraphModule, network: fx.GraphModule) -> fx.GraphModule:
    for name, layer in quant_layers(network).items():
        integer = view.get_submodule(name)
        assert isinstance(integer, IntegerLayer)
        integer.bias, integer.bias_scale = exact_bias(layer, batch_norm_of(network, name)), None
    return view


@pytest.mark.parametrize("model", [*NETWORKS, cifar_network])
@pytest.mark.parametrize("bits", [2, 4])
def test_the_view_with_unrounded_biases_is_the_fake_quant_network(model: type[nn.Module], bits: int) -> None:
    network = with_exact_scales(quantized(model(), policy(bits))[0])
    view = with_unrounded_biases(deploy_view(network, DEPLOY).double(), network)
    x = images(16).double()
    torch.testing.assert_close(view(x), network(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("model", [*NETWORKS, cifar_network])
@pytest.mark.parametrize("refine", [True, False])
def test_the_deploy_stage_is_its_own_deploy_view(model: type[nn.Module], refine: bool) -> None:
    network, _ = quantized(model())
    stage = with_exact_scales(fold_batch_norm(network, refine_bias=refine))
    view = deploy_view(stage, Deploy(refine_bias=refine)).double()
    x = images(16).double()
    torch.testing.assert_close(view(x), stage(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("model", NETWORKS)
def test_folding_changes_the_network_by_the_rounding_of_biases_alone(
    model: type[nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, _ = quantized(model())
    network = with_exact_scales(network)
    stage = fold_batch_norm(copy.deepcopy(network), refine_bias=True)
    monkeypatch.setattr(QuantLayer, "integer_bias", lambda layer, scale: layer.bias)
    x = images().double()
    torch.testing.assert_close(stage(x), network(x), rtol=1e-9, atol=1e-9)


def test_the_deploy_stage_has_no_batch_norm_and_learns_everything_else() -> None:
    network, _ = quantized(Residual())
    stage = fold_batch_norm(network)
    assert not [m for m in stage.modules() if isinstance(m, nn.BatchNorm2d)]
    stage.train()(images()).square().sum().backward()
    assert [name for name, p in stage.named_parameters() if p.grad is None] == []


def test_folding_twice_is_folding_once() -> None:
    stage = fold_batch_norm(quantized(Residual())[0])
    before = stage(images())
    assert torch.equal(fold_batch_norm(stage)(images()), before)


def test_a_rounded_bias_gets_the_gradient_of_the_bias_itself() -> None:
    stage = fold_batch_norm(quantized(Residual())[0])
    layer = quant_layers(stage)["conv2"]
    scale = torch.tensor(0.25)
    rounded = layer.integer_bias(scale)
    assert rounded is not None and layer.bias is not None
    step = scale * layer.channel_scales(layer.channel_gain, layer.refinement)[0]  # type: ignore[arg-type]
    torch.testing.assert_close((rounded / step).detach(), (layer.bias / step).round().detach())
    upstream = torch.randn_like(rounded)
    rounded.backward(upstream)  # type: ignore[no-untyped-call]
    assert layer.bias.grad is not None and torch.equal(layer.bias.grad, upstream)


@pytest.mark.parametrize(("bits", "expected"), [(2, 32), (4, 8), (8, 1)])
def test_refined_biases_lie_on_a_finer_grid(bits: int, expected: int) -> None:
    network, _ = quantized(Residual(), policy(bits))
    fine, coarse = (deploy_view(network, Deploy(refine_bias=refine)) for refine in (True, False))
    for name in ("conv1", "conv2"):
        a, b = fine.get_submodule(name), coarse.get_submodule(name)
        assert isinstance(a, IntegerLayer) and isinstance(b, IntegerLayer)
        assert (a.refinement, b.refinement) == (expected, 1)
        assert torch.equal(a.weight, b.weight * expected)
        assert torch.equal(a.weight_scale * expected, b.weight_scale)
        assert (a.float_bias() - b.float_bias()).abs().max() <= b.bias_scale.max() / 2 + a.bias_scale.max()  # type: ignore[union-attr]


def test_a_dead_channel_with_a_large_bias_stays_a_constant_in_stage_and_view() -> None:
    network, _ = quantized(Residual())
    norm = network.get_submodule("bn1")
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        norm.weight[0], norm.bias[0] = 0.0, 1000.0
    expected = network(images())
    view = deploy_view(network, DEPLOY)
    stage = fold_batch_norm(network)
    assert torch.isfinite(stage(images())).all()
    integer = view.get_submodule("conv1")
    assert isinstance(integer, IntegerLayer) and not integer.weight[0].any()
    torch.testing.assert_close(integer.float_bias()[0].item(), 1000.0, rtol=1e-5, atol=0)
    rounded = quant_layers(stage)["conv1"].integer_bias(view.get_buffer("quantizers.stem_relu.scale"))
    assert rounded is not None and rounded[0] == integer.float_bias()[0]
    torch.testing.assert_close(stage(images()), expected, rtol=0.1, atol=0.2)


# activations


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


# what a view is made of


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


def test_a_learned_offset_has_no_view() -> None:
    quant = policy(activation=ActivationQuantizer(kind="lsq+", bits=4))
    network, plan = quantize(Residual(), quant, ())
    for module in network.modules():
        if isinstance(module, Quantizer):
            module.initialised.fill_(True)
    assert not plan.deployable
    with pytest.raises(ArtifactError, match="learned offset cannot be deployed"):
        deploy_view(network, DEPLOY)
