"""DoReFa against its equation, differentiated by torch."""

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from saq_qat.quant.numerics.kinds.dorefa import DOREFA, squash
from saq_qat.quant.numerics.kinds.table import weight_grid
from saq_qat.quant.numerics.layers import QuantConv2d
from saq_qat.quant.numerics.quantizer import Quantizer


def published(weight: Tensor, bits: int) -> Any:
    """Eq. 9 as it is written, with a straight-through rounding."""
    n = 2**bits - 1
    squashed = torch.tanh(weight)
    share = squashed / (2 * squashed.abs().max()) + 0.5
    return 2 * (share + ((share * n).round() / n - share).detach()) - 1


@given(bits=st.integers(2, 7), seed=st.integers(0, 999))
def test_values_and_gradients_are_those_of_the_paper(bits: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(8, 3, 3, 3, generator=generator, dtype=torch.float64)
    upstream = torch.randn(8, 3, 3, 3, generator=generator, dtype=torch.float64)
    quantizer = Quantizer(weight_grid("dorefa", bits), bits=bits, kind=DOREFA, method="ones").double()
    quantizer.initialise(weight)
    results = []
    functions: tuple[Callable[[Tensor], Any], ...] = (quantizer, lambda w: published(w, bits))
    for function in functions:
        leaf = weight.clone().requires_grad_()
        out = function(leaf)
        results.append((out, *torch.autograd.grad(out, leaf, upstream)))
    for own, other in zip(*results, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-9)


def test_codes_are_those_of_the_values_it_trains_with() -> None:
    layer = QuantConv2d(nn.Conv2d(4, 8, 3), Quantizer(weight_grid("dorefa", 4), bits=4, kind=DOREFA))
    layer.weight_quantizer.initialise(layer.quantizer_input())
    values = layer.quantized_weight()
    assert torch.equal(layer.weight_codes() * layer.weight_scale(), values)
    assert int(layer.weight_codes().abs().max()) == 15


def test_a_layer_keeps_the_width_of_its_weights_unless_told_the_papers() -> None:
    weight = torch.linspace(-0.2, 0.1, 30)
    for method, width in (("mse", 0.2), ("ones", 1.0)):
        quantizer = Quantizer(weight_grid("dorefa", 4), bits=4, kind=DOREFA, method=method)  # type: ignore[arg-type]  # a literal
        quantizer.initialise(weight)
        assert float(quantizer(weight).abs().max()) == torch.tensor(width)
        assert not quantizer.alpha.requires_grad


def test_zeros_stay_finite() -> None:
    assert torch.equal(squash(torch.zeros(3), torch.ones(())), torch.zeros(3))
