"""Operations of a node, beside those that its definition counts: by hand, and by the batch."""

from typing import Any

import pytest

from saq_qat_runtime.bundle.onnx_call import BATCH, Call, Shape, TensorFacts
from saq_qat_runtime.bundle.onnx_operators import OPERATORS
from saq_qat_runtime.bundle.onnx_work import elements

N = BATCH
STEP = 32
CASES: list[tuple[str, list[Shape], dict[str, Any], int]] = [
    ("Conv", [(N, 6, 9, 8), (4, 6, 3, 2)], {}, N * (4 * 7 * 7) * (6 * 3 * 2)),
    ("Conv", [(N, 6, 9, 8), (6, 2, 3, 3)], {"group": 3}, N * (6 * 7 * 6) * (2 * 3 * 3)),
    ("ConvTranspose", [(N, 6, 9, 8), (6, 2, 3, 3)], {"group": 2}, N * (6 * 9 * 8) * (2 * 3 * 3)),
    ("MaxPool", [(N, 6, 9, 8)], {"kernel_shape": (3, 2), "strides": (2, 2)}, STEP * N * 6 * 4 * 4 * 3 * 2),
    ("AveragePool", [(N, 6, 9, 8)], {"kernel_shape": (9, 8)}, STEP * N * 6 * 9 * 8),
    ("MatMul", [(N, 5, 7), (7, 3)], {}, N * 5 * 7 * 3),
    ("MatMul", [(N, 1, 5, 7), (2, 7, 3)], {}, N * 2 * 5 * 7 * 3),
    ("MatMul", [(5, 7), (7, 3)], {}, 5 * 7 * 3),
    ("Gemm", [(N, 7), (3, 7)], {"transB": 1}, N * 7 * 3),
    ("Gemm", [(7, 5), (7, 3)], {"transA": 1}, 5 * 7 * 3),
    ("Einsum", [(N, 5, 7), (7, 3)], {"equation": "nij,jk->nik"}, N * 5 * 7 * 3),
    ("Einsum", [(5,), (6,), (7,)], {"equation": "i,j,k->"}, 5 * 6 + 7),
    ("LSTM", [(5, N, 7), (2, 12, 7), (2, 12, 3)], {}, 5 * N * 2 * 12 * (7 + 3)),
    ("GRU", [(5, N, 7), (1, 9, 7), (1, 9, 3)], {}, 5 * N * 9 * (7 + 3)),
    ("LRN", [(N, 6, 9, 8)], {"size": 5}, STEP * N * 6 * 9 * 8 * 5),
    ("Relu", [(N, 6)], {}, 0),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {case[1]}")
def test_a_node_takes_as_many_operations_as_its_definition(
    case: tuple[str, list[Shape], dict[str, Any], int],
) -> None:
    name, given, attributes, expected = case
    call = Call(tuple(TensorFacts(shape, 4) for shape in given), attributes, 1)
    assert OPERATORS[name].work(call) == expected


def test_what_no_image_has_a_part_in_is_met_by_every_image() -> None:
    assert elements([(N, 5), (7,)]) == STEP * N * (5 + 7)
    assert elements([(3, 5), (7,)]) == STEP * (15 + 7)
