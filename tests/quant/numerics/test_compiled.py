"""Compiled quantizers and layers: the same codes on every value, and the same gradients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from saq_qat.optim.compilation import missing_compiler
from saq_qat.quant.numerics.kinds.table import KINDS, activation_grid, weight_grid
from saq_qat.quant.numerics.layers import QuantConv2d, QuantLayer, QuantLinear
from saq_qat.quant.numerics.quantizer import Quantizer

pytestmark = pytest.mark.skipif(
    missing_compiler(torch.device("cpu")) is not None, reason="compares with what a C++ compiler makes"
)
SHAPE = (4, 16, 48, 48)


@dataclass(frozen=True)
class Case:
    kind: str
    signed: bool
    offset: bool
    channels_last: bool
    weight: bool = False


CASES = [
    *(
        Case(kind, signed, offset, not offset)
        for kind in ("saq", "lsq", "pact", "symmetric")
        for signed in (False, True)
        for offset in (False, True)
        if KINDS[kind].activation_grid is not None
    ),
    *(Case(kind, True, False, kind == "saq", weight=True) for kind in ("saq", "symmetric", "lsq", "dorefa")),
]

# One of each kind, and both layouts in memory; other signs, offsets and roles with the slow ones.
QUICK = [
    Case("saq", False, False, True),
    Case("lsq", True, True, False),
    Case("pact", False, False, True),
    Case("symmetric", True, False, False, weight=True),
    Case("dorefa", True, False, False, weight=True),
]


def quantizer(case: Case) -> Quantizer:
    grid = weight_grid(case.kind, 4) if case.weight else activation_grid(case.kind, 4, signed=case.signed)
    made = Quantizer(grid, bits=4, kind=KINDS[case.kind], offset=case.offset, counts_from_zero=case.offset)
    made.alpha.data.fill_(0.0371 if made.kind.learns_step else -0.5565)
    if made.beta is not None:
        made.beta.data.fill_(-0.123)
    return made


def values(of: Quantizer, channels_last: bool, seed: int) -> Tensor:
    """Random values, ties and bounds of the quantizer's grid, and the floats next to them."""
    generator = torch.Generator().manual_seed(seed)
    count = torch.Size(SHAPE).numel()
    offset = torch.zeros(()) if of.beta is None else of.beta.detach()
    halves = torch.randint(-40, 40, (count // 2,), generator=generator) / 2
    ties = halves * of.scale + offset
    towards = torch.where(torch.rand(ties.shape, generator=generator) < 0.5, torch.inf, -torch.inf)
    near = torch.where(
        torch.rand(ties.shape, generator=generator) < 0.5, ties, torch.nextafter(ties, towards)
    )
    wide = torch.randn(count - len(near), generator=generator)
    mixed = torch.cat([near, wide])[torch.randperm(count, generator=generator)].reshape(SHAPE)
    return mixed.contiguous(memory_format=torch.channels_last) if channels_last else mixed


def compiled(function: Callable[..., list[Tensor]]) -> Callable[..., list[Tensor]]:
    torch.compiler.reset()
    made: Callable[..., list[Tensor]] = torch.compile(function, fullgraph=True, dynamic=False)
    return made


def test_compiled_quantizers_of_each_kind_give_the_same_codes_and_gradients_with_ties() -> None:
    assert {case.kind for case in QUICK} == {case.kind for case in CASES} and set(QUICK) <= set(CASES)
    assert compare(QUICK) == len(QUICK) * torch.Size(SHAPE).numel()


@pytest.mark.slow  # the compiler takes a minute for all of them
def test_compiled_quantizers_give_the_same_codes_and_gradients_on_two_million_values_with_ties() -> None:
    assert compare(CASES) > 2e6


def compare(cases: Sequence[Case]) -> int:
    """Hold a program of these quantizers against eager ones; gives the number of values."""
    quantizers = [quantizer(case) for case in cases]
    inputs = [
        values(of, case.channels_last, index).requires_grad_()
        for index, (of, case) in enumerate(zip(quantizers, cases, strict=True))
    ]
    torch.manual_seed(0)
    upstream = [torch.randn_like(x) for x in inputs]
    parameters = [p for of in quantizers for p in of.parameters() if p.requires_grad]

    def all_of(*tensors: Tensor) -> list[Tensor]:
        return [of(x) for of, x in zip(quantizers, tensors, strict=True)]

    expected, found = all_of(*inputs), compiled(all_of)(*inputs)
    for case, eager, other in zip(cases, expected, found, strict=True):
        assert torch.equal(eager, other), case
    of_eager = torch.autograd.grad(expected, [*inputs, *parameters], upstream)
    of_compiled = torch.autograd.grad(found, [*inputs, *parameters], upstream)
    for case, eager, other in zip(cases, of_eager, of_compiled, strict=False):
        if case.kind == "dorefa":
            torch.testing.assert_close(other, eager, rtol=1e-6, atol=1e-6)
        else:
            assert torch.equal(eager, other), case
    length = float(upstream[0].norm())
    for eager, other in zip(of_eager[len(inputs) :], of_compiled[len(inputs) :], strict=True):
        assert float(eager) == pytest.approx(float(other), rel=1e-6, abs=1e-6 * length)
    return sum(x.numel() for x in inputs)


def layer(normalize: bool, shift: Literal["normalised", "raw"] | None, folded: bool) -> QuantLayer:
    torch.manual_seed(3)
    of = Quantizer(weight_grid("saq", 4), bits=4)
    made = QuantConv2d(nn.Conv2d(24, 32, 3, padding=1), of, normalize=normalize, rescale_std=normalize)
    made.to(memory_format=torch.channels_last)
    of.initialise(made.quantizer_input().detach())
    if shift is not None:
        made.open_shift(shift).normal_(0, 0.02)
    made.open_slot().data.normal_(0, 0.02)
    if folded:
        made.fold(torch.randn(32), torch.randn(32), 8)
    return made


LAYERS = [
    layer(normalize, shift, folded)
    for normalize in (False, True)
    for shift in (None, "normalised", "raw")
    for folded in (False, True)
]


# Each way to shift a weight, normalised and folded or not.
QUICK_LAYERS = [LAYERS[index] for index in (0, 3, 8, 11)]


@pytest.mark.parametrize(
    "layers",
    [
        pytest.param(QUICK_LAYERS, id="quick"),
        pytest.param(LAYERS, id="all", marks=pytest.mark.slow),  # the compiler takes half a minute for them
    ],
)
def test_compiled_layers_have_the_same_weights_and_biases_bit_for_bit(layers: list[QuantLayer]) -> None:
    of_input = Quantizer(activation_grid("lsq", 4, signed=False), bits=4, kind=KINDS["lsq"], offset=True)
    scale, offset = of_input.scale, of_input.offset()
    linear = QuantLinear(nn.Linear(40, 30), Quantizer(weight_grid("saq", 3), bits=3), normalize=True)

    def weights() -> list[Tensor]:
        found = [made.quantized_weight() for made in (*layers, linear)]
        biases = [made.integer_bias(scale, at) for made in layers for at in (None, offset)]
        return [*found, *(bias for bias in biases if bias is not None)]

    expected, found = weights(), compiled(weights)()
    assert len(found) == len(layers) + 1 + 2 * len(layers)
    for index, (eager, other) in enumerate(zip(expected, found, strict=True)):
        assert torch.equal(eager, other), index
