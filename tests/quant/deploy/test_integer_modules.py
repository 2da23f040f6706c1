"""Modules of the deploy view: codes of either storage, and linear layers on any number of axes."""

import pytest
import torch

from saq_qat.quant.deploy.fold import FoldedLayer
from saq_qat.quant.deploy.integer_modules import IntegerLinear, Quantize
from saq_qat.quant.numerics.grid import Grid
from saq_qat.quant.numerics.quantizer import Quantizer


def test_int8_codes_are_those_of_uint8_without_the_zero_point() -> None:
    x, scale = torch.linspace(-3, 3, 50), torch.tensor(0.3)
    unsigned = Quantize(scale, minimum=-8, maximum=7, zero_point=8, bits=4)(x)
    signed = Quantize(scale, minimum=-8, maximum=7, zero_point=0, bits=4, stored="int8")(x)
    assert (unsigned.dtype, signed.dtype) == (torch.uint8, torch.int8)
    assert torch.equal(unsigned.int() - 8, signed.int())


def test_int8_with_a_zero_point_is_refused() -> None:
    with pytest.raises(ValueError, match="zero point 0, not 8"):
        Quantize(torch.tensor(1.0), minimum=-8, maximum=7, zero_point=8, bits=4, stored="int8")


def test_what_lies_on_the_grid_is_not_clipped() -> None:
    quantize = Quantize(
        torch.tensor(1.0), minimum=-8, maximum=7, zero_point=0, bits=4, on_grid=True, stored="int8"
    )
    assert quantize(torch.tensor([-200.0, 100.0, 200.0])).tolist() == [-128, 100, 127]


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4), (2, 3, 5, 4)], ids=str)
def test_a_linear_layer_maps_the_last_axis(shape: tuple[int, ...]) -> None:
    codes = torch.randint(-7, 8, (6, 4), dtype=torch.int8)
    folded = FoldedLayer(codes, torch.rand(6) + 0.1, torch.randn(6))
    layer = IntegerLinear(folded, torch.tensor(0.5), Quantizer(Grid(-7, 7, unit=7), bits=4), 1)
    x = torch.randn(shape)
    expected = x.double() @ layer.float_weight().double().T + layer.float_bias().double()
    assert layer(x).shape == expected.shape
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-5, atol=1e-5)
