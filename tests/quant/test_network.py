"""From a float model to a quantized network: insertion and calibration."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, fx, nn

from saq_qat.errors import DataError
from saq_qat.quant.network import calibrate, plan_network, quantize, quantize_planned
from saq_qat.quant.numerics.layers import quant_layers
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.quant.trace import graph
from saq_qat.quant.trace.inputs import activation_quantizers
from saq_qat.recipe.schema import Override
from tests.quant.networks import TARGETS, BranchAndConcat, Gated, NoNorm, Residual, images, policy

MODELS = [Residual, BranchAndConcat, Gated, NoNorm]


def quantizers_read_by(network: fx.GraphModule, name: str) -> list[str]:
    """Targets of the quantizers whose codes the inputs of a node come from."""
    node = next(node for node in network.graph.nodes if node.name == name)
    found = []
    for parent in node.all_input_nodes:
        while graph.is_carrier(network, parent):
            parent = parent.all_input_nodes[0]
        found.append(str(parent.target).removeprefix("quantizers."))
    return found


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("placement", ["deploy", "paper"])
def test_every_consumer_reads_the_quantizer_it_was_promised(model: type[nn.Module], placement: str) -> None:
    network, plan = quantize(
        model(), policy(placement=placement, quantize_image=placement == "deploy"), TARGETS
    )
    for tensor in plan.tensors:
        for consumer in tensor.consumers:
            assert tensor.name in quantizers_read_by(network, consumer)
    for layer in plan.layers:
        node = next(node for node in network.graph.nodes if node.target == layer.name)
        assert (layer.input or "x") in (*quantizers_read_by(network, node.name), "x")
    assert list(activation_quantizers(network)) == [tensor.name for tensor in plan.tensors]


def test_a_network_that_was_planned_before_is_quantized_as_one_that_was_not() -> None:
    model = Residual().eval()
    at_once, plan = quantize(copy.deepcopy(model), policy(), TARGETS)
    network, before = plan_network(model, policy(), TARGETS)
    quantize_planned(network, before)
    assert (before, network.code) == (plan, at_once.code)
    own, other = network.state_dict(), at_once.state_dict()
    assert own.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in own.items())


def test_a_narrow_quantizer_reads_the_codes_of_the_common_one() -> None:
    network, _ = quantize(
        Residual(), policy(overrides=(Override(match="shortcut", activation_bits=2),)), TARGETS
    )
    assert quantizers_read_by(network, "conv1") == ["stem_relu_4bit_0"]
    assert quantizers_read_by(network, "shortcut") == ["stem_relu_2bit_1"]
    for narrow in ("quantizers_stem_relu_4bit_0", "quantizers_stem_relu_2bit_1"):
        assert quantizers_read_by(network, narrow) == ["stem_relu"]


def test_a_block_and_its_shortcut_share_one_quantizer() -> None:
    network, _ = quantize(Residual(), policy(), TARGETS)
    assert quantizers_read_by(network, "conv1") == quantizers_read_by(network, "shortcut") == ["stem_relu"]


def test_the_network_shares_the_models_parameters_and_leaves_the_model_alone() -> None:
    model = Residual()
    before = copy.deepcopy(model)
    network, _ = quantize(model, policy(), TARGETS)
    assert network.get_parameter("conv1.weight") is model.conv1.weight
    assert isinstance(model.conv1, nn.Conv2d)
    assert torch.equal(model(images()), before(images()))


def test_weights_are_placed_at_once_and_activations_are_not() -> None:
    network, _ = quantize(Residual(), policy(), TARGETS)
    assert all(bool(layer.weight_quantizer.initialised) for layer in quant_layers(network).values())
    assert not any(bool(q.initialised) for q in activation_quantizers(network).values())


@pytest.mark.parametrize("model", MODELS)
def test_training_reaches_every_parameter_and_backward_survives_readers_in_place(
    model: type[nn.Module],
) -> None:
    network, _ = quantize(model(), policy(), TARGETS)
    calibrate(network, [images()])
    network.train()(images()).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


class InPlace(nn.Module):
    """Activations that overwrite their input, as torchvision's networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(3, 3, 1) for _ in range(3))
        self.act = nn.SiLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv1(x))
        x = nn.functional.hardswish(self.conv2(x), inplace=True)
        x = self.conv3(x).sigmoid_()
        return x.mean((2, 3))


def test_a_reader_that_works_in_place_does_not_overwrite_codes() -> None:
    model = InPlace()
    network, _ = quantize(model, policy(), TARGETS)
    calibrate(network, [images()])
    network(images()).sum().backward()
    assert model.act.inplace


def test_calibration_places_every_quantizer() -> None:
    network, _ = quantize(Residual(), policy(), TARGETS)
    calibrate(network, [images(seed=1), images(seed=2)])
    assert all(bool(m.initialised) for m in network.modules() if isinstance(m, Quantizer))


def test_calibration_gives_batch_norm_the_mean_of_the_batch_statistics() -> None:
    network, _ = quantize(Residual(), policy(quantize_image=False), TARGETS)
    batches = [images(seed=1), images(seed=2), images(seed=3)]
    calibrate(network, batches)
    # the stem reads the image as it is, so what its BatchNorm saw does not depend on other quantizers
    seen = [network.get_submodule("stem")(batch) for batch in batches]
    norm = network.get_submodule("stem_bn")
    means = torch.stack([x.mean((0, 2, 3)) for x in seen])
    variances = torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in seen])
    torch.testing.assert_close(norm.running_mean, means.mean(0).detach())
    torch.testing.assert_close(norm.running_var, variances.mean(0).detach())


def failing_batches() -> Iterator[Tensor]:
    yield images()
    raise OSError("disk")


@pytest.mark.parametrize("training", [True, False])
def test_calibration_restores_modes_and_momenta_even_if_a_batch_fails(training: bool) -> None:
    network, _ = quantize(Residual(), policy(), TARGETS)
    network.train(training)
    with pytest.raises(OSError, match="disk"):
        calibrate(network, failing_batches())
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [norm.momentum for norm in norms] == [0.1] * 4
    assert all(module.training is training for module in network.modules())


def test_calibration_without_images_is_an_error() -> None:
    network, _ = quantize(Residual(), policy(), TARGETS)
    with pytest.raises(DataError, match="at least one batch"):
        calibrate(network, [])


def test_dropout_is_off_while_calibrating() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Dropout(0.9), nn.Conv2d(3, 3, 1))
    network, _ = quantize(model, policy(), TARGETS)
    calibrate(network, [images()])
    with torch.no_grad():
        values = network.get_submodule("0")(network.get_submodule("quantizers.image")(images()))
    alpha = activation_quantizers(network)["_0"].alpha.detach()
    assert float(alpha) <= float(values.abs().max()) * 1.001


def test_a_plan_changes_nothing() -> None:
    model = Residual()
    network, plan = plan_network(model, policy(), TARGETS)
    assert plan.tensors and not quant_layers(network)
    assert torch.equal(network(images()), model(images()))
