"""What is told of values on a grid is what plain arithmetic finds."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saq_qat.quant.numerics.grid import Grid
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.report.collect import collect
from saq_qat.report.grids import golden_inputs, grid_use, measure_grids, network_of
from saq_qat.train.checkpoint import newest_checkpoint
from saq_qat_export.proof.numbers.trained import read_trained


def quantizer(grid: Grid, bits: int, clip_level: float) -> Quantizer:
    found = Quantizer(grid, bits=bits)
    found.alpha.data.fill_(clip_level)
    return found


@given(st.lists(st.floats(-4, 4, width=32), min_size=2, max_size=40), st.floats(0.125, 3, width=32))
def test_codes_noise_and_clipping_are_those_of_the_formula(values: list[float], clip_level: float) -> None:
    x = np.array(values, np.float32)
    use = grid_use("x", quantizer(Grid(0, 15, 15), 4, clip_level), torch.from_numpy(x))
    scale = np.float32(clip_level) / np.float32(15)
    codes = np.clip(np.rint(x / scale), 0, 15)
    noise = float(np.square(x.astype(np.float64) - codes * float(scale)).sum())
    signal = float(np.square(x.astype(np.float64)).sum())
    assert use.used == len(np.unique(codes)) and use.legal == 16
    assert use.clipped == pytest.approx(float(((x < 0) | (x > np.float32(clip_level))).mean()))
    assert sum(use.histogram) == len(values)
    if noise > 1e-6 and signal > 0:
        assert use.sqnr_db == pytest.approx(10 * math.log10(signal / noise), rel=1e-3, abs=1e-3)


def test_values_on_the_odd_grid_lose_nothing_and_lie_on_its_codes() -> None:
    odd = quantizer(Grid(-3, 3, 3, step=2), 2, 1.5)
    use = grid_use("x", odd, torch.tensor([-1.5, -0.5, 0.5, 1.5]))
    assert (use.used, use.legal, use.sqnr_db, use.clipped) == (4, 4, None, 0.0)
    filled = [index for index, count in enumerate(use.histogram) if count]
    width = (use.high - use.low) / len(use.histogram)
    for index, code in zip(filled, (-3, -1, 1, 3), strict=True):
        assert use.low + index * width <= code <= use.low + (index + 1) * width


def test_weights_are_those_that_the_proof_computes_from_the_checkpoint_alone(exported: Path) -> None:
    known = collect(exported)
    checkpoint = newest_checkpoint(exported / "checkpoints" / "best")
    assert checkpoint is not None and checkpoint.data is not None and checkpoint.folder is not None
    assert known.manifest is not None
    inputs = golden_inputs(exported / "export", known.manifest.golden.file.name)
    found = measure_grids(network_of(known.recipe, checkpoint, len(checkpoint.data.classes)), inputs)
    trained = read_trained(checkpoint.folder)
    assert [use.name for use in found.weights] == [record.name for record in trained.records.layers]
    for use, record in zip(found.weights, trained.records.layers, strict=True):
        assert use.used == len(np.unique(trained.weight_codes(record)))
        assert use.scale == pytest.approx(float(trained.scale(record.weight)))
    assert found.images == len(inputs)
    with np.load(exported / "export" / known.manifest.golden.file.name) as golden:
        for tensor in known.manifest.tensors:
            use = next(each for each in found.activations if each.name == tensor.name)
            assert use.used == len(np.unique(golden[tensor.code_tensor]))
            assert use.scale == pytest.approx(tensor.scale)


def test_a_network_without_its_bundle_tells_of_its_weights_alone(exported: Path) -> None:
    known = collect(exported)
    checkpoint = newest_checkpoint(exported / "checkpoints" / "best")
    assert checkpoint is not None
    found = measure_grids(network_of(known.recipe, checkpoint, 10), None)
    assert (len(found.weights), found.activations, found.images) == (3, (), 0)
