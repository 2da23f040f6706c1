"""Biases as integers, and rounding to them."""

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from saq_qat.quant.numerics.bias import codes_of_bias, round_to_step

seeds = st.integers(0, 2**31)


@given(seeds, st.floats(2**-20, 10, width=32))
def test_round_to_step_gives_multiples_and_passes_the_gradient(seed: int, step: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randn(20, generator=generator) * 100).requires_grad_()
    out = round_to_step(x, torch.tensor(step))
    exact = x.detach().double().numpy() / step
    last_bit = 2.0 ** np.maximum(np.frexp(exact)[1] - 22, 0)
    expected = np.rint(exact / last_bit) * last_bit * step
    assert np.array_equal(out.detach().numpy(), expected.astype(np.float32))
    torch.autograd.backward(out.sum())
    assert x.grad is not None
    assert x.grad.tolist() == [1.0] * 20


@given(st.floats(-(2**31 - 1), 2**31 - 1), st.floats(2**-20, 1, width=32))
def test_codes_of_biases_have_22_significant_bits(units: float, step: float) -> None:
    bias = torch.tensor(units, dtype=torch.float64) * step
    (code,) = codes_of_bias(bias.reshape(1), torch.tensor([step])).tolist()
    exact = float(bias) / step
    length = int(abs(code)).bit_length()
    assert code == round(code) and int(code) % 2 ** max(length - 22, 0) == 0
    assert abs(code - exact) <= 0.5 * 2 ** max(math.frexp(exact)[1] - 22, 0) * (1 + 1e-9)
    if abs(exact) < 2**21:
        assert code == round(exact)
