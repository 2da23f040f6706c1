"""PACT against its equations, differentiated by torch."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from saq_qat.optim.build import build_optimizer
from saq_qat.quant.numerics.kinds.pact import PACT, fake_quantize_pact
from saq_qat.quant.numerics.kinds.saq import SAQ
from saq_qat.quant.numerics.kinds.table import activation_grid
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.recipe.schema import Sgd


class _Round(torch.autograd.Function):
    """Rounding whose gradient is one."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx: object, *upstream: Tensor) -> Tensor:
        return upstream[0]


def published(x: Tensor, alpha: Tensor, bits: int) -> Any:
    """Eq. 1 and 2 as they are written: y = 0.5 (|x| - |x - alpha| + alpha), rounded on n steps."""
    n = 2**bits - 1
    y = 0.5 * (x.abs() - (x - alpha).abs() + alpha)
    # Eq. 3 passes nothing to alpha through the rounding: the quotient is straight-through in y alone
    return y + (_Round.apply(y.detach() * n / alpha.detach()) * alpha.detach() / n - y.detach())


@given(bits=st.integers(2, 7), level=st.floats(0.1, 4.0), seed=st.integers(0, 999))
def test_values_and_gradients_are_those_of_the_paper(bits: int, level: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(257, generator=generator, dtype=torch.float64).mul_(2).requires_grad_()
    upstream = torch.randn(257, generator=generator, dtype=torch.float64)
    alpha = torch.tensor(level, dtype=torch.float64, requires_grad=True)
    grid = activation_grid("pact", bits, signed=False)
    ours = fake_quantize_pact(x, alpha, grid)
    theirs = published(x, alpha, bits)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for own, other in zip(
        torch.autograd.grad(ours, (x, alpha), upstream),
        torch.autograd.grad(theirs, (x, alpha), upstream),
        strict=True,
    ):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-9)


def test_the_clip_level_learns_nothing_from_rounding_where_that_of_saq_does() -> None:
    x, grid = torch.tensor([0.3, 0.4]), activation_grid("pact", 2, signed=False)
    for kind, learns in ((PACT, False), (SAQ, True)):
        quantizer = Quantizer(grid, bits=2, kind=kind)
        quantizer(x).sum().backward()
        assert quantizer.alpha.grad is not None
        assert bool(quantizer.alpha.grad != 0) == learns


@pytest.mark.parametrize(("stated", "expected"), [(None, 0.1), (0.0, 0.0), (0.2, 0.2)])
def test_the_clip_level_decays_as_weights_do_unless_the_recipe_says_otherwise(
    stated: float | None, expected: float
) -> None:
    network = torch.nn.ModuleList(
        Quantizer(activation_grid(kind.name, 4, signed=False), bits=4, kind=kind) for kind in (PACT, SAQ)
    )
    optimizer = build_optimizer(network, Sgd(kind="sgd", weight_decay=0.1, clip_level_decay=stated))
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    pact, saq = (quantizer.alpha for quantizer in network)
    assert decays[id(pact)] == expected
    assert decays[id(saq)] == (stated or 0.0)
