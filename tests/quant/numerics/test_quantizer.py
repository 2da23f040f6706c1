"""A quantizer as a module: state, initialisation, observation."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from saq_qat.quant.numerics.functional import STEP_FLOOR, fake_quantize
from saq_qat.quant.numerics.initialise import Initialisation
from saq_qat.quant.numerics.kinds.lsq import LSQ
from saq_qat.quant.numerics.kinds.saq import SAQ
from saq_qat.quant.numerics.kinds.table import KINDS, activation_grid, weight_grid
from saq_qat.quant.numerics.quantizer import Quantizer, observing


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
        quantizer = Quantizer(grid, bits=4, kind=LSQ if lsq else SAQ)
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
    quantizer = Quantizer(activation_grid("lsq", 4, signed=False), bits=4, method="max", kind=LSQ)
    quantizer.initialise(torch.tensor([0.0, 3.0]))
    assert quantizer.alpha.item() == pytest.approx(3.0 / 15)


@pytest.mark.parametrize("signed", [False, True])
def test_max_with_an_offset_spreads_all_codes_from_the_smallest_to_the_largest_value(signed: bool) -> None:
    grid = activation_grid("lsq", 4, signed=signed)
    quantizer = Quantizer(grid, bits=4, offset=True, method="max", kind=LSQ)
    x = torch.tensor([-0.2, 2.8])
    quantizer.initialise(x)
    assert quantizer.codes(x).tolist() == [grid.minimum, grid.maximum]
    torch.testing.assert_close(quantizer(x).detach(), x)


# codes counted from the code of zero


def from_zero(beta: float) -> Quantizer:
    quantizer = Quantizer(activation_grid("saq", 4, signed=False), bits=4, offset=True, counts_from_zero=True)
    quantizer.alpha.data.fill_(1.5)
    quantizer.get_parameter("beta").data.fill_(beta)
    return quantizer


@pytest.mark.parametrize(
    ("beta", "codes", "offset"),
    [
        (-0.23, (-2, 13), -0.03),
        (0.0, (0, 15), 0.0),
        (0.4, (0, 15), 0.4),
        (-1.5, (-15, 0), 0.0),
        (-9.0, (-15, 0), -7.5),
    ],
)
def test_codes_are_counted_from_the_one_nearest_to_zero(
    beta: float, codes: tuple[int, int], offset: float
) -> None:
    quantizer = from_zero(beta)
    assert quantizer.code_range() == codes
    own = quantizer.offset()
    assert own is not None
    assert own.item() == pytest.approx(offset, abs=1e-6)
    everything = torch.linspace(-20, 20, 401)
    found = quantizer.codes(everything)
    assert (int(found.min()), int(found.max())) == codes
    assert torch.equal(quantizer(everything).detach(), found * quantizer.scale + own.detach())


def test_without_padding_codes_are_counted_from_the_offset() -> None:
    quantizer = Quantizer(activation_grid("saq", 4, signed=False), bits=4, offset=True)
    assert quantizer.code_range() == (0, 15) and quantizer.offset() is quantizer.beta
    plain = Quantizer(activation_grid("saq", 4, signed=True), bits=4)
    assert plain.code_range() == (-7, 7) and plain.offset() is None


def test_codes_without_an_offset_cannot_be_moved_to_zero() -> None:
    with pytest.raises(ValueError, match="count from zero anyway"):
        Quantizer(activation_grid("saq", 4, signed=True), bits=4, counts_from_zero=True)


def test_a_step_below_the_floor_counts_as_the_floor_for_zero_too() -> None:
    quantizer = Quantizer(
        activation_grid("lsq", 4, signed=False), bits=4, kind=LSQ, offset=True, counts_from_zero=True
    )
    quantizer.alpha.data.fill_(-0.3)
    quantizer.get_parameter("beta").data.fill_(-2.2 * STEP_FLOOR)
    before = quantizer.offset()
    assert quantizer.code_range() == (-2, 13)
    x = torch.tensor([0.0, 9.0])
    out = quantizer(x).detach()
    after = quantizer.offset()
    assert before is not None and after is not None
    assert before.item() == after.item() == out[0].item()


# steps below the floor


def below_the_floor(step: float) -> Quantizer:
    quantizer = Quantizer(activation_grid("lsq", 4, signed=True), bits=4, kind=LSQ, offset=True)
    quantizer.alpha.data.fill_(step)
    return quantizer


@pytest.mark.parametrize("step", [-0.3, -0.0, 0.0, 1e-5])
def test_a_step_below_the_floor_is_exported_as_it_is_trained(step: float) -> None:
    quantizer = below_the_floor(step)
    x = images()[0] * 1e-3
    scale, codes, inside = quantizer.scale.clone(), quantizer.codes(x), quantizer.clip_mask(x)
    lower, upper = quantizer.clip_bounds()
    assert scale == torch.tensor(STEP_FLOOR)
    out = quantizer(x)
    assert torch.equal(out.detach(), codes * scale)
    quantizer.settle()
    assert quantizer.alpha.item() == quantizer.scale.item() == scale.item()
    assert torch.equal(inside, quantizer.clip_mask(x)) and torch.equal(inside, (x >= lower) & (x <= upper))


def test_a_step_above_the_floor_is_left_alone() -> None:
    quantizer = below_the_floor(2e-4)
    quantizer.settle()
    assert quantizer.alpha.item() == quantizer.scale.item() == torch.tensor(2e-4).item()


OPTIMIZERS: list[Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = [
    lambda parameters: torch.optim.SGD(parameters, lr=0.5),
    lambda parameters: torch.optim.SGD(parameters, lr=0.5, momentum=0.5, foreach=True),
    lambda parameters: torch.optim.AdamW(parameters, lr=0.5, betas=(0.5, 0.9), foreach=True),
]


@pytest.mark.parametrize("build", OPTIMIZERS)
def test_an_optimizer_that_drives_a_step_below_zero_goes_on_from_the_floor(
    build: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
) -> None:
    quantizer = below_the_floor(0.1)
    optimizer = build([quantizer.alpha])

    def step(direction: float) -> None:
        optimizer.zero_grad()
        out = quantizer(torch.full((4,), 1e3))  # above the largest code: the output moves with the step
        (direction * out.sum()).backward()
        optimizer.step()

    step(1.0)
    assert quantizer.alpha < 0
    quantizer.settle()
    assert quantizer.scale == torch.tensor(STEP_FLOOR)
    step(-1.0)
    assert quantizer.alpha > STEP_FLOOR
    assert torch.equal(quantizer.scale, quantizer.alpha.detach())
    assert torch.equal(quantizer(torch.full((1,), 1e3)).detach(), 7 * quantizer.scale[None])


def test_readers_of_one_quantizer_share_its_gradient_though_its_step_was_below_the_floor() -> None:
    quantizer = below_the_floor(-1.0)
    inputs = [image.requires_grad_() for image in images()[:2]]
    total = quantizer(inputs[0]).sum() + quantizer(inputs[1]).sum()
    total.backward()
    assert quantizer.alpha.grad is not None and torch.isfinite(quantizer.alpha.grad)


def test_a_clip_level_below_zero_keeps_counting_by_its_magnitude() -> None:
    quantizer = Quantizer(activation_grid("saq", 4, signed=False), bits=4, offset=True)
    quantizer.alpha.data.fill_(-0.5)
    quantizer(images()[0])
    quantizer.settle()
    assert quantizer.alpha == -0.5
    assert quantizer.scale.item() == pytest.approx(0.5 / 15)


# offsets


@pytest.mark.parametrize("kind", ["saq", "lsq"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("method", ["ones", "max", "mse", "least_squares"])
def test_an_offset_is_placed_trained_and_exported_for_every_kind_and_method(
    kind: str, signed: bool, method: Initialisation
) -> None:
    grid = activation_grid(kind, 4, signed=signed)
    quantizer = Quantizer(grid, bits=4, offset=True, method=method, kind=KINDS[kind])
    x = torch.nn.functional.gelu(images()[0])
    quantizer.initialise(x)
    assert quantizer.beta is not None and quantizer.beta != 0
    out = quantizer(x)
    offset = quantizer.beta.detach()
    assert torch.equal(out.detach(), quantizer.codes(x) * quantizer.scale + offset)
    assert method == "ones" or (out.detach() - x).abs().mean() < 0.2 * x.abs().mean()
    (out * torch.linspace(-1, 1, x.numel()).reshape(x.shape)).sum().backward()
    clipped = ~quantizer.clip_mask(x)
    expected = (torch.linspace(-1, 1, x.numel()).reshape(x.shape) * clipped).sum()
    assert quantizer.beta.grad is not None
    torch.testing.assert_close(quantizer.beta.grad, expected, atol=1e-6, rtol=1e-5)


def test_observing_sets_the_mean_of_offsets_too() -> None:
    grid = activation_grid("saq", 4, signed=False)
    quantizer = Quantizer(grid, bits=4, offset=True, method="max")
    with observing([quantizer]):
        for batch in images():
            quantizer(batch)
    assert quantizer.beta is not None
    assert quantizer.beta.item() == pytest.approx(sum(float(batch.min()) for batch in images()) / 3)


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
    quantizer = Quantizer(activation_grid("lsq", 4, signed=False), bits=4, offset=True, kind=LSQ)
    quantizer.initialise(images()[0])
    other = Quantizer(activation_grid("lsq", 4, signed=False), bits=4, offset=True, kind=LSQ)
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
