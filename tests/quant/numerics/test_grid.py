"""Grids: the legal codes of every kind and width."""

import numpy as np
import pytest

from saq_qat.errors import LegalityError
from saq_qat.quant.numerics.grid import Grid, exceeds_pair_bound
from saq_qat.quant.numerics.kinds.table import activation_grid, weight_grid

BITS = range(2, 9)


@pytest.mark.parametrize("bits", range(2, 8))
def test_saq_weights_are_the_odd_integers(bits: int) -> None:
    grid = weight_grid("saq", bits)
    codes = range(grid.minimum, grid.maximum + 1, grid.step)
    assert [code % 2 for code in codes] == [1] * 2**bits
    assert grid.levels == 2**bits
    assert grid.unit == grid.maximum == -grid.minimum == 2**bits - 1


@pytest.mark.parametrize("kind", ["saq", "symmetric", "lsq"])
@pytest.mark.parametrize("bits", BITS)
def test_deployed_weights_fit_int8_with_either_sign(kind: str, bits: int) -> None:
    grid = weight_grid(kind, bits)
    assert -127 <= grid.minimum <= grid.maximum <= 127
    assert -grid.minimum <= 127


@pytest.mark.parametrize(("kind", "minimum", "maximum"), [("saq", -255, 255), ("lsq", -128, 127)])
def test_the_papers_eight_bit_weights_stay_available(kind: str, minimum: int, maximum: int) -> None:
    grid = weight_grid(kind, 8, paper=True)
    assert (grid.minimum, grid.maximum, grid.levels) == (minimum, maximum, 256)


@pytest.mark.parametrize(("first", "second"), [(127, 129), (127, 128), (255, 64), (254, 64)])
def test_pairs_at_the_bound_fit_int16(first: int, second: int) -> None:
    assert not exceeds_pair_bound(first, second)
    assert 2 * first * second <= np.iinfo(np.int16).max


@pytest.mark.parametrize(("first", "second"), [(127, 130), (128, 128), (255, 65), (255, 127)])
def test_pairs_beyond_the_bound_do_not(first: int, second: int) -> None:
    assert exceeds_pair_bound(first, second)
    assert 2 * first * second > np.iinfo(np.int16).max


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("activation_kind", ["saq", "symmetric", "lsq"])
@pytest.mark.parametrize("weight_kind", ["saq", "symmetric", "lsq"])
@pytest.mark.parametrize("activation_bits", BITS)
@pytest.mark.parametrize("weight_bits", BITS)
def test_no_pair_of_kinds_and_bits_exceeds_the_pair_bound(
    weight_kind: str, weight_bits: int, activation_kind: str, activation_bits: int, signed: bool
) -> None:
    largest = activation_grid(activation_kind, activation_bits, signed=signed).largest_stored
    free = weight_grid(weight_kind, weight_bits)
    grid = weight_grid(weight_kind, weight_bits, largest_input=largest)
    assert 2 * largest * max(-grid.minimum, grid.maximum) <= np.iinfo(np.int16).max
    if 2 * largest * max(-free.minimum, free.maximum) <= np.iinfo(np.int16).max:
        assert grid == free
    else:
        assert (grid.minimum, grid.maximum, grid.step) == (-63, 63, 1)
        assert (largest, weight_bits in (7, 8)) == (255, True)


def test_weights_of_the_paper_stay_as_they_are_behind_any_codes() -> None:
    assert weight_grid("saq", 7, paper=True, largest_input=255).maximum == 127
    assert weight_grid("symmetric", 8, paper=True, largest_input=255).maximum == 63


@pytest.mark.parametrize("bits", BITS)
def test_symmetric_weights_have_a_zero_and_no_favourite_sign(bits: int) -> None:
    grid = weight_grid("symmetric", bits)
    assert (-grid.minimum, grid.unit, grid.step) == (grid.maximum, grid.maximum, 1)
    assert grid.maximum == 2 ** (bits - 1) - 1


@pytest.mark.parametrize(
    ("kind", "bits", "signed", "paper", "expected"),
    [
        ("saq", 2, False, False, Grid(0, 3, unit=3)),
        ("saq", 4, False, False, Grid(0, 15, unit=15)),
        ("saq", 8, False, False, Grid(0, 127, unit=127)),
        ("saq", 8, False, True, Grid(0, 255, unit=255)),
        ("saq", 4, True, False, Grid(-7, 7, unit=7)),
        ("saq", 8, True, False, Grid(-128, 127, unit=127)),
        ("symmetric", 4, False, False, Grid(-7, 7, unit=7)),
        ("symmetric", 8, False, False, Grid(-128, 127, unit=127)),
        ("lsq", 4, False, False, Grid(0, 15, unit=1)),
        ("lsq", 4, True, False, Grid(-8, 7, unit=1)),
        ("lsq", 8, True, False, Grid(-128, 127, unit=1)),
    ],
)
def test_activation_grids(kind: str, bits: int, signed: bool, paper: bool, expected: Grid) -> None:
    assert activation_grid(kind, bits, signed=signed, paper=paper) == expected


@pytest.mark.parametrize("kind", ["saq", "symmetric", "lsq"])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("signed", [False, True])
def test_every_activation_grid_holds_zero_and_fits_eight_bits(kind: str, bits: int, signed: bool) -> None:
    grid = activation_grid(kind, bits, signed=signed)
    assert grid.minimum <= 0 < grid.maximum
    assert grid.maximum - grid.minimum <= 255
    assert grid.signed == (grid.minimum < 0)


def test_a_grid_describes_itself() -> None:
    assert weight_grid("saq", 4).describe() == "-15..15 odd"
    assert activation_grid("saq", 4, signed=False).describe() == "0..15"


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(LegalityError, match=r"Weight quantizers .* lsq.*; got 'ternary'"):
        weight_grid("ternary", 4)
    with pytest.raises(LegalityError, match=r"Activation quantizers .* lsq.*; got 'ternary'"):
        activation_grid("ternary", 4, signed=False)
