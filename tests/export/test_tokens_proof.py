"""The proof of a transformer fails where it must: one wrong number or float, named by layer or product."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from saq_qat_export.comparison import compare_reference, compare_view
from saq_qat_export.onnx_graph import OnnxGraph
from saq_qat_export.probe import Probe
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


def next_float(values: Array) -> None:
    values[...] = np.nextafter(values, np.float32(np.inf))


@pytest.mark.parametrize(
    ("name", "change", "tensor"),
    [
        ("fc1.weight", add_one, "fc1"),
        ("proj.bias", add_one, "proj"),
        ("fc2.weight_scale", next_float, "fc2"),
        ("quantizers.mul.scale", next_float, "matmul"),
    ],
)
def test_one_wrong_number_fails_and_is_named(name: str, change: Callable[[Array], None], tensor: str) -> None:
    reference, double, _ = climb(transformer(), [images()], changed(name, change, transformer().graph))
    assert not reference.passed
    assert reference.detail.startswith(f"first at {tensor}: ")
    assert double.passed or double.detail.startswith(f"first at {tensor}: ")
