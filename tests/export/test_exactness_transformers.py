"""The promise for the second family: Vision Transformers and MobileNetV2 with offsets, on both targets.

The large networks, on photographs of your own, with every count printed:
`SAQ_QAT_IMAGES=FOLDER .venv/bin/python -m pytest -s -m slow tests/export/test_exactness_transformers.py`
"""

from dataclasses import replace

import pytest
import torch

from saq_qat_export.proof.probe import with_code_outputs
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend
from tests.export.cases import (
    LARGE,
    TINY,
    Case,
    assert_exact,
    assert_exact_for_tensorrt,
    fixed,
    lowered,
    refusals,
)
from tests.export.networks import Lowered, smooth_images
from tests.export.photos import photos

OFFSETS = {"vit-tiny": "bounded", "mobilenet-tiny": "signed"}
TINY_CASES = [
    Case(network, bits, kind, OFFSETS[network.name])
    for network in TINY
    for bits in (4, 8)
    for kind in ("lsq", "saq")
]
LARGE_CASES = [
    Case(network, bits, kind, offset)
    for network in LARGE
    for bits in (4, 8)
    for kind in ("lsq", "saq")
    for offset in ("bounded", "signed")
]
PARTLY_FLOAT = [
    case
    for network in TINY
    for case in (
        Case(network, 4, "saq", OFFSETS[network.name], (("placement", "paper"),)),
        Case(network, 4, "saq", OFFSETS[network.name], (("quantize_image", False),)),
        Case(network, 4, "saq", OFFSETS[network.name], targets=("tensorrt",)),
    )
]


# One network of each pair at once; the other with the slow ones.
QUICK_PARTLY_FLOAT = [
    case if index % 2 == 0 else pytest.param(case, marks=pytest.mark.slow)  # ten seconds each
    for index, case in enumerate(PARTLY_FLOAT)
]


def batches(case: Case) -> list[torch.Tensor]:
    return [smooth_images(8, case.network.side, seed=1)]


def assert_integer(found: Lowered) -> None:
    """Every layer and product runs on an integer kernel, also where codes are further outputs."""
    for content in (found.graph.content, with_code_outputs(found.graph)):
        kernels = OnnxRuntimeBackend(content).integer_count()
        assert kernels.integer == kernels.total == len(found.plan.layers) + len(found.plan.products)


def for_tensorrt(case: Case) -> bool:
    """Step sizes of 8 bits count from 0 to 255, where clip levels count to 127."""
    return (case.bits, case.kind) != (8, "lsq")


# Each kind and each number of bits once; in the other pairs of them, which are slow, nothing else happens.
@pytest.mark.parametrize(
    "case",
    [
        case
        if (case.bits, case.kind) in ((4, "lsq"), (8, "saq"))
        else pytest.param(case, marks=pytest.mark.slow)  # as said above
        for case in TINY_CASES
    ],
    ids=str,
)
def test_no_integer_operation_of_a_tiny_network_differs(case: Case) -> None:
    assert_exact(case, lowered(case), batches(case))
    assert_integer(lowered(case))


# At 4 bits, graphs of plans that are partly float are proved below.
@pytest.mark.parametrize(
    "case",
    [
        # Slow: what the first shows, at other bits and of other kinds.
        case if (case.bits, case.kind) == (8, "saq") else pytest.param(case, marks=pytest.mark.slow)
        for case in TINY_CASES
        if for_tensorrt(case)
    ],
    ids=str,
)
def test_graphs_for_tensorrt_of_a_tiny_network_are_proved(case: Case) -> None:
    assert not refusals(fixed(case))
    assert_exact_for_tensorrt(case, lowered(fixed(case)), batches(case))


@pytest.mark.parametrize("case", QUICK_PARTLY_FLOAT, ids=str)
def test_networks_with_layers_in_float_are_proved(case: Case) -> None:
    """Whole convolutions and sums between codes; what is left of integer operations is exact."""
    found = lowered(case)
    assert_exact(case, found, batches(case))
    assert_exact_for_tensorrt(case, found, batches(case))


@pytest.mark.parametrize("offset", ["none", "bounded", "signed"])
@pytest.mark.parametrize("network", TINY, ids=lambda network: network.name)
def test_unsigned_steps_of_8_bits_are_refused_for_tensorrt_with_a_fix(network: object, offset: str) -> None:
    """Before anything is trained: rules over the plan."""
    case = next(case for case in TINY_CASES if case.network == network and not for_tensorrt(case))
    found = refusals(replace(case, offset=offset))
    assert {finding.rule for finding in found} == {"TRT002"}
    assert all("0..255" in finding.message and "kind saq" in finding.fix for finding in found)


def large_photos(case: Case) -> list[torch.Tensor]:
    """16 small images or 4 large ones, in batches."""
    count = 16 if case.network.side < 64 else 4
    return list(torch.split(photos(count, case.network.side, seed=1), count // 2))


@pytest.mark.slow  # networks of full size
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("case", LARGE_CASES, ids=str)
def test_no_integer_operation_of_a_network_differs(case: Case) -> None:
    found = case.lower(photos(8, case.network.side))
    assert_exact(case, found, large_photos(case))
    assert_integer(found)


@pytest.mark.slow  # networks of full size
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("case", [case for case in LARGE_CASES if for_tensorrt(case)], ids=str)
def test_graphs_for_tensorrt_of_a_network_are_proved(case: Case) -> None:
    assert not refusals(fixed(case))
    found = fixed(case).lower(photos(8, case.network.side))
    assert_exact_for_tensorrt(case, found, large_photos(case))
