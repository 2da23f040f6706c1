"""Steps, margins and what samples show, held against every sum and every change written out."""

from itertools import product

import numpy as np
import numpy.typing as npt
import pytest

from saq_qat_export.bundle.probes.coverage import cover
from saq_qat_export.bundle.probes.design import design_samples
from saq_qat_export.bundle.probes.layers import SummedLayer
from saq_qat_export.bundle.probes.steps import FAR, margins, nearest, rounding_steps
from saq_qat_export.reference.integer_math import CodeRange, requantize_accumulator

SCALE = np.float32(0.37)
CODES = CodeRange(0, 7)
HIGHEST = 3
TAPS = 6
Codes = npt.NDArray[np.int32]


def codes_of(sums: npt.NDArray[np.int64], grid: npt.NDArray[np.float32]) -> Codes:
    """(out, many)."""
    return requantize_accumulator(sums.astype(np.int32), grid[:, None], SCALE, CODES)


def layer_of(seed: int, *, unit: int = 1) -> SummedLayer:
    """Four channels on six taps of 0..3, each tap an element; weights are multiples of ``unit``."""
    random = np.random.default_rng(seed)
    weight = unit * random.integers(-4, 5, (4, TAPS))
    bias = random.integers(-9, 30, 4)
    grid = (random.uniform(0.03, 0.2, 4) / unit).astype(np.float32)
    grids = [(grid * np.float32(factor)).astype(np.float32) for factor in (1, 1.0001, 0.9999)]
    steps, *moved = (rounding_steps(each, SCALE, CODES)[None] for each in grids)
    cells = np.arange(1, TAPS + 1, dtype=np.int32).reshape(1, 1, TAPS)
    return SummedLayer(
        "layer", "x", "y", cells, weight[None], bias[None], steps, np.stack(moved), grid[None], 0, HIGHEST
    )


def changed_codes(layer: SummedLayer, samples: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
    """Of every change of a weight or bias, by trying it: (2, out, taps + 1)."""
    weight, bias, grid = layer.weight[0], layer.bias[0], layer.grid[0]
    read = np.concatenate([samples.astype(np.int64), np.ones((len(samples), 1), np.int64)], axis=1).T
    sums = np.concatenate([weight, bias[:, None]], axis=1) @ read
    own = codes_of(sums, grid)
    changed = [[(codes_of(sums + step * row, grid) != own).any(1) for row in read] for step in (1, -1)]
    return np.array(changed).transpose(0, 2, 1)


def test_a_step_is_the_smallest_sum_of_its_code() -> None:
    grid = np.random.default_rng(0).uniform(1e-4, 0.3, 6).astype(np.float32)
    steps = rounding_steps(grid, SCALE, CODES)
    wanted = np.arange(1, 8)
    assert (codes_of(steps, grid) >= wanted).all()
    assert (codes_of(steps - 1, grid) < wanted).all()


def test_steps_beyond_int32_are_far() -> None:
    steps = rounding_steps(np.array([1e-12], np.float32), SCALE, CODES)
    assert (steps == FAR).all()


@pytest.mark.parametrize("many", [1, 50])
def test_margins_lead_to_the_next_code_and_no_nearer_sum_does(many: int) -> None:
    random = np.random.default_rng(1)
    grid = random.uniform(0.01, 0.3, 5).astype(np.float32)
    sums = random.integers(-40, 120, (5, many))
    up, down = margins(sums, rounding_steps(grid, SCALE, CODES))
    own = codes_of(sums, grid)
    for margin, sign in ((up, 1), (down, -1)):
        inside = margin < FAR // 2
        moved = np.where(inside, sums + sign * margin, sums)
        assert (codes_of(moved, grid) != own)[inside].all()
        np.testing.assert_array_equal(codes_of(np.where(inside, moved - sign, sums), grid), own)


@pytest.mark.parametrize("unit", [0, 1, 3, 8])
def test_the_nearest_sum_of_a_channel_is_found_among_all(unit: int) -> None:
    bias, steps = 5, np.array([-20, 3, 5, 6, 40])
    sums = bias + unit * np.arange(-100, 101)
    up, down = nearest(steps, bias, unit)
    for step, above, below in zip(steps, up, down, strict=True):
        rises, falls = step - sums, sums - step + 1
        assert above == min(rises[rises > 0], default=FAR)
        assert below == min(falls[falls > 0], default=FAR)


@pytest.mark.parametrize(("seed", "unit"), [(0, 1), (1, 1), (2, 2), (3, 5)])
def test_what_samples_show_is_what_changes_their_codes(seed: int, unit: int) -> None:
    layer = layer_of(seed, unit=unit)
    samples = np.random.default_rng(seed).integers(0, HIGHEST + 1, (10, TAPS)).astype(np.int16)
    found = cover(layer, [samples])
    np.testing.assert_array_equal(found.shown[:, 0, :, :-1], changed_codes(layer, samples))


def test_designed_samples_show_nearly_all_that_any_can_and_what_is_proved_none_shows() -> None:
    every = np.array(list(product(range(HIGHEST + 1), repeat=TAPS)), np.int16)
    can_show = shown = proved = 0
    for seed, unit in ((0, 1), (1, 1), (2, 2), (3, 5), (4, 7)):
        layer = layer_of(seed, unit=unit)
        possible = changed_codes(layer, every)
        designed = design_samples(layer, TAPS, 200, np.random.default_rng(0))
        found = cover(layer, [designed])
        without_effect = found.without_effect[:, 0, :, :-1]
        assert not (without_effect & possible).any()
        assert len(designed) < 20
        can_show += int(possible.sum())
        shown += int(found.shown[:, 0, :, :-1].sum())
        proved += int(without_effect.sum())
    assert shown >= 0.9 * can_show
    assert proved > 0
