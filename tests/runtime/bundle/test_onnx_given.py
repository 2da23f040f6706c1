"""A model cut at its codes computes each tensor from what is given."""

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from saq_qat_runtime.bundle.onnx_given import GivenCodes, own_name, with_given_codes
from saq_qat_runtime.errors import ModelError
from tests.runtime.networks import images, run_plain

CODES = ("x0_codes", "x1_codes", "x2_codes")


def cut(content: bytes, given: dict[str, NDArray[np.uint8]]) -> onnxruntime.InferenceSession:
    kinds = {name: GivenCodes(str(codes.dtype), codes.shape[1:]) for name, codes in given.items()}
    changed = with_given_codes(content, kinds, ())
    return onnxruntime.InferenceSession(changed, providers=["CPUExecutionProvider"])


def test_from_its_own_codes_a_model_computes_what_it_computes_whole(network_bytes: bytes) -> None:
    logits, codes = run_plain(network_bytes, images(3), CODES)
    outputs = [own_name(name) for name in CODES]
    found = cut(network_bytes, codes).run(["logits", *outputs], {"image": images(3), **codes})
    np.testing.assert_array_equal(found[0], logits)
    for name, own in zip(CODES, found[1:], strict=True):
        np.testing.assert_array_equal(own, codes[name])


def test_each_tensor_is_computed_from_given_codes_in_a_batch_of_its_own(network_bytes: bytes) -> None:
    _, codes = run_plain(network_bytes, images(3), CODES)
    other = {**codes, "x0_codes": np.concatenate([codes["x0_codes"], 255 - codes["x0_codes"]])}
    outputs = [own_name(name) for name in CODES]
    x0, x1, x2 = cut(network_bytes, other).run(outputs, {"image": images(3), **other})
    np.testing.assert_array_equal(x0, codes["x0_codes"])
    assert len(x1) == 6
    np.testing.assert_array_equal(x1[:3], codes["x1_codes"])
    assert (x1[3:] != codes["x1_codes"]).any()
    np.testing.assert_array_equal(x2, codes["x2_codes"])


def test_a_tensor_that_no_node_writes_is_named(network_bytes: bytes) -> None:
    with pytest.raises(ModelError, match=r"must write x9 once\. Copy the bundle"):
        with_given_codes(network_bytes, {"x9": GivenCodes("uint8", (2,))}, ())
    with pytest.raises(ModelError, match="holds no graph"):
        with_given_codes(b"", {}, ())
