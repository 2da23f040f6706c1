"""A quantizer as a module: state, initialisation, observation."""

import pytest
import torch

from saq_qat.quant.functional import fake_quantize
from saq_qat.quant.grid import activation_grid, weight_grid
from saq_qat.quant.quantizer import Quantizer, observing


def images(count: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 4, 4, generator=generator) * (index + 1) for index in range(count)]


def test_forward_is_fake_quantize_with_its_parameters() -> None:
    quantizer = Quantizer(weight_grid("saq", 4), bits=4)
    quantizer.alpha.data.fill_(-0.8)
    x = images()[0]
    assert torch.equal(quantizer(x), fake_quantize(x, torch.tensor(-0.8), quantizer.grid))
    assert torch.equal(quantizer.codes(x) * quantizer.scale, quantizer(x).detach())


def test_lsq_scales_its_gradient_by_the_size_of_the_tensor() -> None:
    grid = activation_grid("lsq", 4, signed=True)
    gradients = []
    for lsq in (False, True):
        quantizer = Quantizer(grid, bits=4, lsq=lsq)
        quantizer(images()[0]).sum().backward()
        assert quantizer.alpha.grad is not None
        gradients.append(float(quantizer.alpha.grad))
    assert gradients[1] == pytest.approx(gradients[0] / (96 * 7) ** 0.5)


def test_initialise_places_the_grid_and_says_so() -> None:
    quantizer = Quantizer(weight_grid("saq", 4), bits=4, method="max")
    assert not quantizer.initialised
    quantizer.initialise(torch.tensor([-2.0, 1.0]))
    assert quantizer.initialised
    assert quantizer.alpha == 2


def test_max_of_a_learned_step_puts_the_largest_code_on_the_largest_value() -> None:
    quantizer = Quantizer(activation_grid("lsq", 4, signed=False), bits=4, method="max", lsq=True)
    quantizer.initialise(torch.tensor([0.0, 3.0]))
    assert quantizer.alpha.item() == pytest.approx(3.0 / 15)


@pytest.mark.parametrize("signed", [False, True])
def test_max_with_an_offset_spreads_all_codes_from_the_smallest_to_the_largest_value(signed: bool) -> None:
    grid = activation_grid("lsq+", 4, signed=signed)
    quantizer = Quantizer(grid, bits=4, offset=True, method="max", lsq=True)
    x = torch.tensor([-0.2, 2.8])
    quantizer.initialise(x)
    assert quantizer.codes(x).tolist() == [grid.minimum, grid.maximum]
    torch.testing.assert_close(quantizer(x).detach(), x)


def test_observing_sets_the_mean_of_the_estimates() -> None:
    quantizer = Quantizer(activation_grid("saq", 4, signed=True), bits=4, method="max")
    with observing([quantizer]):
        for index, batch in enumerate(images(), start=1):
            quantizer(batch)
            seen = [float(b.abs().max()) for b in images()[:index]]
            assert quantizer.alpha.item() == pytest.approx(sum(seen) / index)
    placed = quantizer.alpha.item()
    quantizer(images()[0] * 100)
    assert quantizer.alpha.item() == placed


def test_observing_ends_even_if_a_batch_fails() -> None:
    quantizer = Quantizer(activation_grid("saq", 4, signed=False), bits=4)
    with pytest.raises(RuntimeError, match="broken"), observing([quantizer]):
        raise RuntimeError("broken")
    quantizer(images()[0])
    assert not quantizer.initialised


def test_a_state_dict_brings_back_the_grid_and_that_it_was_placed() -> None:
    quantizer = Quantizer(activation_grid("lsq+", 4, signed=False), bits=4, offset=True, lsq=True)
    quantizer.initialise(images()[0])
    other = Quantizer(activation_grid("lsq+", 4, signed=False), bits=4, offset=True, lsq=True)
    other.load_state_dict(quantizer.state_dict())
    assert other.initialised
    assert torch.equal(other(images()[1]), quantizer(images()[1]))


def test_half_precision_inputs_are_quantized_in_the_clip_levels_precision() -> None:
    quantizer = Quantizer(activation_grid("saq", 8, signed=False), bits=8)
    x = images()[0].to(torch.bfloat16)
    assert quantizer(x).dtype == torch.float32
    assert torch.equal(quantizer(x), quantizer(x.float()))


def test_it_prints_its_bits_and_codes() -> None:
    assert "4 bits, -15..15 odd" in repr(Quantizer(weight_grid("saq", 4), bits=4))
