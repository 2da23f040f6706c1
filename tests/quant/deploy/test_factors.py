"""Powers of two behind linear layers move into their scales, and not one number changes."""

import copy
import operator
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fx, nn

from saq_qat.quant.deploy.factors import fold_factors
from saq_qat.quant.deploy.integer_modules import IntegerLinear
from saq_qat.quant.deploy.view import deploy_view
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.recipe.schema import Deploy
from tests.quant.networks import Attention, images, quantized

Change = Callable[[Tensor], Tensor]


class Factored(nn.Module):
    """A linear layer whose result is changed, reshaped and read by another layer."""

    def __init__(self, change: Change) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 6), nn.Linear(3, 5)
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.first(x.flatten(1)).reshape(-1, 2, 3)
        return self.second(self.change(tokens).transpose(0, 1))  # type: ignore[no-any-return]


def view_of(change: Change) -> fx.GraphModule:
    """A deploy view before its factors are folded."""
    scale = torch.tensor(0.1)
    traced = fx.symbolic_trace(Factored(change)).eval()
    for name, module in list(traced.named_children()):
        if isinstance(module, nn.Linear):
            traced.set_submodule(name, integer_layer(module, scale))
    return traced


def integer_layer(layer: nn.Linear, scale: Tensor) -> IntegerLinear:
    module = IntegerLinear.__new__(IntegerLinear)
    nn.Module.__init__(module)
    codes = torch.randint(-7, 8, layer.weight.shape, generator=torch.Generator().manual_seed(0)).to(
        torch.int8
    )
    weight_scale = layer.weight.detach().abs().amax(1) / 7
    module.factor = 1.0
    module.register_buffer("weight", codes)
    module.register_buffer("weight_scale", weight_scale)
    module.register_buffer("bias_scale", weight_scale * scale)
    module.register_buffer("bias", torch.arange(-3, layer.out_features - 3, dtype=torch.int32))
    return module


def multiplications(view: fx.GraphModule) -> int:
    operations = (operator.mul, operator.truediv, torch.mul, "mul")
    return sum(node.target in operations for node in view.graph.nodes)


@pytest.mark.parametrize(
    ("change", "factor"),
    [
        (lambda x: x * 0.125, 0.125),
        (lambda x: 4 * x, 4.0),
        (lambda x: x / 8, 0.125),
        (lambda x: torch.mul(x, 0.5), 0.5),
        (lambda x: x.mul(0.25), 0.25),
    ],
)
def test_powers_of_two_are_folded_bit_for_bit(change: Change, factor: float) -> None:
    before = view_of(change)
    after = copy.deepcopy(before)
    fold_factors(after)
    assert multiplications(after) == 0
    x = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    assert torch.equal(after(x), before(x))
    old, new = (dict(view.get_submodule("first").named_buffers()) for view in (before, after))
    for name in ("weight", "bias"):
        assert torch.equal(new[name], old[name])
    for name in ("weight_scale", "bias_scale"):
        assert torch.equal(new[name], old[name] * factor)
    untouched = (view.get_buffer("second.weight_scale") for view in (before, after))
    assert len({tuple(scale.tolist()) for scale in untouched}) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x * 0.1,
        lambda x: x * -0.5,
        lambda x: x * 0.0,
        lambda x: 0.5 / x,
        lambda x: x * float("inf"),
        lambda x: x * x,
        lambda x: x * 2.0**-140,
        lambda x: x + x * 0.5,
        lambda x: (x - 1.0) * 0.5,
    ],
    ids=["tenth", "negative", "zero", "dividend", "infinite", "square", "tiny", "two-readers", "no-layer"],
)
def test_anything_else_stays(change: Change) -> None:
    view = view_of(change)
    nodes = [str(node) for node in view.graph.nodes]
    fold_factors(view)
    assert [str(node) for node in view.graph.nodes] == nodes


def test_a_layer_that_is_called_twice_keeps_its_scales() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.layer(x) * 0.5)  # type: ignore[no-any-return]

    view = fx.symbolic_trace(Twice())
    view.set_submodule("layer", integer_layer(nn.Linear(3, 3), torch.tensor(0.1)))
    fold_factors(view)
    assert multiplications(view) == 1


def test_the_scale_of_attention_is_part_of_the_query() -> None:
    """``q * 0.5`` in training, nothing of it in the deploy view; codes have the scale that was trained."""
    network, _ = quantized(Attention())
    view = deploy_view(network, Deploy())
    assert multiplications(network) == 1
    assert multiplications(view) == 0
    trained = network.get_submodule("quantizers.mul")
    assert isinstance(trained, Quantizer)
    assert torch.equal(view.get_buffer("quantizers.mul.scale"), trained.scale)
    x = images(4)
    torch.testing.assert_close(view(x), network(x), rtol=0.2, atol=0.2)
