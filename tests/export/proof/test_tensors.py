"""What counts as a difference, what as a rounding tie, and what runs as an integer kernel."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import fx, nn

from saq_qat.quant.deploy.fold import FoldedLayer
from saq_qat.quant.deploy.integer_modules import IntegerLinear, Quantize
from saq_qat.quant.deploy.ops import DEQUANTIZE
from saq_qat.quant.numerics.grid import Grid
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat_export.proof.probe import Observation, Probe
from saq_qat_export.proof.tensors import (
    TensorComparison,
    compare_reference,
    compare_view,
    merge,
    producers,
)
from tests.export.networks import SIDE, small, smooth_images
from tests.export.onnx_models import Array


def one_product(weight: int, bias: float, scale: float) -> fx.GraphModule:
    """A deploy view: codes of scale 1 times ``weight`` plus ``bias``, quantized by ``scale``."""
    grid = Grid(-127, 127, unit=127)
    folded = FoldedLayer(torch.tensor([[weight]], dtype=torch.int8), torch.ones(1), torch.tensor([bias]))
    quantizers = nn.ModuleDict(
        {
            name: Quantize(torch.tensor(own), minimum=0, maximum=255, zero_point=0, bits=8)
            for name, own in (("image", 1.0), ("fc", scale))
        }
    )
    layer = IntegerLinear(folded, torch.ones(()), Quantizer(grid, bits=8), 1)
    graph = fx.Graph()
    codes = graph.call_module("quantizers.image", (graph.placeholder("x"),))
    values = graph.call_function(DEQUANTIZE, (codes, graph.get_attr("quantizers.image.scale"), 0))
    graph.output(graph.call_module("quantizers.fc", (graph.call_module("fc", (values,)),)))
    return fx.GraphModule(nn.ModuleDict({"quantizers": quantizers, "fc": layer}), graph)


def seen(codes: dict[str, Array], logits: Array | None = None) -> Observation:
    return Observation(codes, {}, np.zeros((1, 1), np.float32) if logits is None else logits)


def compared(view: fx.GraphModule, stored: int) -> TensorComparison:
    """The product of code 200 against a forged engine."""
    engine = {"image.codes": np.array([[200]], np.uint8), "fc.codes": np.array([[stored]], np.uint8)}
    return compare_view(copy.deepcopy(view).double(), torch.tensor([[200.0]]).double(), seen(engine))[-1]


def test_a_code_that_no_tie_explains_is_a_mismatch() -> None:
    view = one_product(1, 0.0, 2.0)
    assert (compared(view, 100).mismatches, compared(view, 100).ties) == (0, 0)
    assert (compared(view, 101).mismatches, compared(view, 101).ties) == (1, 0)
    assert compared(view, 97).largest_step == 3


def test_a_code_at_a_tie_is_counted_as_a_tie() -> None:
    view = one_product(1, 1.0, 2.0)  # 201 / 2
    found = compared(view, 101)
    assert (found.mismatches, found.ties, found.tie_values, found.largest_step) == (0, 1, 1, 1)


def test_products_and_bias_that_cancel_widen_the_tie() -> None:
    """1 / 2.0002 is no tie by its own size; but 20000 - 19999 was rounded with float32 scales before."""
    assert compared(one_product(100, -19999.0, 2.0002), 1).ties == 1
    assert compared(one_product(1, -199.0, 2.0002), 1).mismatches == 1


def test_equal_values_at_a_tie_count_once_as_values() -> None:
    view = one_product(1, 1.0, 2.0)
    engine = {"image.codes": np.full((6, 1), 200, np.uint8), "fc.codes": np.full((6, 1), 101, np.uint8)}
    found = compare_view(copy.deepcopy(view).double(), torch.full((6, 1), 200.0).double(), seen(engine))[-1]
    assert (found.ties, found.tie_values) == (6, 1)


@pytest.fixture(scope="module")
def engine() -> Observation:
    return Probe(small().graph).observe(smooth_images(2, SIDE, seed=1).numpy())


@pytest.mark.parametrize("name", small().graph.code_tensors)
def test_one_forged_code_is_found_where_it_is_and_nowhere_before(name: str, engine: Observation) -> None:
    """Teacher forcing: only what is computed straight from the forged code can differ behind it."""
    images = smooth_images(2, SIDE, seed=1).numpy()
    forged = {key: codes.copy() for key, codes in engine.codes.items()}
    place = np.unravel_index(forged[name].size // 2, forged[name].shape)
    forged[name][place] += 1
    found = compare_reference(small().view, images, seen(forged, engine.logits))
    assert next(t for t in found if t.mismatches).name == name
    assert {t.name: t.mismatches for t in found}[name] == 1


def test_merge_sums_counts_and_keeps_the_largest_step() -> None:
    first = TensorComparison("a", "integer", 10, 1, 2, 1, 1, steps=15)
    other = replace(first, name="b", largest_step=0)
    assert merge([[first, other], [replace(first, largest_step=3)]]) == [
        TensorComparison("a", "integer", 20, 2, 4, 2, 3, steps=15),
        other,
    ]
    assert merge([]) == []


def test_producers_of_the_small_network_are_all_integer() -> None:
    assert set(producers(small().view)) == {*small().graph.code_tensors, "logits"}
    assert set(producers(small().view).values()) == {"integer"}
