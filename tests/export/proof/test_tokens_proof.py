"""The proof of a transformer fails where it must: one wrong number or float, named by layer or product."""

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from saq_qat_export.graph.onnx_graph import OnnxGraph
from saq_qat_export.proof.comparison import exact_comparison, tied_comparison
from saq_qat_export.proof.probe import Probe
from saq_qat_export.proof.tensors import compare_reference, compare_view
from tests.export.onnx_models import Array
from tests.export.test_tokens import climb, images, transformer


@pytest.mark.parametrize("name", transformer().graph.float_results)
def test_one_forged_float_is_found_where_it_is_and_nowhere_else(name: str) -> None:
    found, batch = transformer(), images(2)
    seen = Probe(found.graph).observe(batch.numpy())
    forged = {key: values.copy() for key, values in seen.values.items()}
    place = forged[name].reshape(-1)
    place[7] = np.nextafter(place[7], np.float32(np.inf))
    wrong = replace(seen, values=forged)
    differing = {t.name: t.mismatches for t in compare_reference(found.view, batch.numpy(), wrong)}
    assert {key: n for key, n in differing.items() if n} == {name: 1}
    place[7] *= np.float32(1.0001)
    view = compare_view(found.view, batch, wrong)
    assert {t.name for t in view if t.mismatches} == {name}


def test_a_value_that_is_no_number_is_a_difference() -> None:
    found, batch = transformer(), images(2)
    seen = Probe(found.graph).observe(batch.numpy())
    seen.values["fc1"].reshape(-1)[0] = np.nan
    assert {t.name for t in compare_reference(found.view, batch.numpy(), seen) if t.mismatches} == {"fc1"}
    assert {t.name for t in compare_view(found.view, batch, seen) if t.mismatches} == {"fc1"}


def changed(name: str, change: Callable[[Array], None], graph: OnnxGraph) -> OnnxGraph:
    """The graph with one constant changed."""
    model = onnx.load_from_string(graph.content)
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == name]
    values = numpy_helper.to_array(tensor).copy()
    change(values)
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    return replace(graph, content=model.SerializeToString())


def add_one(values: Array) -> None:
    values.reshape(-1)[0] += 1


def one_ten_thousandth_more(values: Array) -> None:
    values[...] = values * np.float32(1.0001)


@pytest.mark.parametrize(
    ("name", "change", "tensor"),
    [
        ("fc1.weight", add_one, "fc1"),
        ("proj.bias", add_one, "proj"),
        ("fc2.weight_scale", one_ten_thousandth_more, "fc2"),
        ("quantizers.mul.scale", one_ten_thousandth_more, "matmul"),
    ],
)
def test_one_wrong_number_fails_and_is_named(name: str, change: Callable[[Array], None], tensor: str) -> None:
    reference, double, _ = climb(transformer(), [images()], changed(name, change, transformer().graph))
    assert not reference.passed
    assert reference.detail.startswith(f"first at {tensor}: ")
    assert double.passed or double.detail.startswith(f"first at {tensor}: ")


@pytest.mark.parametrize("name", ["norm1.codes", "softmax.codes", "act.codes"])
def test_one_wrong_code_behind_a_float_operation_fails_the_gate(name: str) -> None:
    """Few as they are, what is no tie is an error; and no tie lies where the forged code is."""
    found, batch = transformer(), images(2)
    seen = Probe(found.graph).observe(batch.numpy())
    forged = {key: codes.copy() for key, codes in seen.codes.items()}
    place = forged[name].reshape(-1)
    index = int(np.flatnonzero((place > 0) & (place < 15))[5])
    place[index] += 1
    wrong = replace(seen, codes=forged)
    reference = exact_comparison("integer reference", compare_reference(found.view, batch.numpy(), wrong))
    assert not reference.passed and reference.detail.startswith(f"first at {name}: 1 of ")
    wide = copy.deepcopy(found.view).double()
    double = tied_comparison("float64", compare_view(wide, batch.double(), wrong), hard=True)
    assert not double.passed and double.detail.startswith(f"first at {name}: 1 of ")


def test_a_float_parameter_that_turns_a_handful_of_codes_fails_the_gate() -> None:
    """A share of all codes would let them pass. Gains that are all 1 are one constant of the graph."""

    def slightly_more(values: Array) -> None:
        values *= np.float32(1 + 1e-3)

    found = transformer()
    reference, double, _ = climb(found, [images()], changed("norm1.weight", slightly_more, found.graph))
    norms = {"norm1.codes", "norm2.codes", "getitem_4.codes"}
    for comparison in (reference, double):
        assert not comparison.passed
        assert 0 < comparison.mismatches <= 8
        assert {t.name for t in comparison.tensors if t.mismatches} <= norms
