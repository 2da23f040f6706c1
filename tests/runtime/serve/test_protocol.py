"""Requests are read strictly, and what is written is what was computed."""

import json
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saq_qat_runtime.bundle.records import TensorSpec
from saq_qat_runtime.errors import InputError
from saq_qat_runtime.serve.protocol import InferRequest, encode_response, parse_request

SOURCE = TensorSpec("image", "float32", ("N", 1, 1, 2))
OUTPUT = TensorSpec("logits", "float32", ("N", 3))
LABELS = ("ant", "bee", "c:at")


def parse(body: bytes, header_length: str | None = None) -> InferRequest:
    return parse_request(body, header_length, SOURCE, OUTPUT, len(LABELS), 2)


def request(**members: object) -> bytes:
    entry = {"name": "image", "shape": [1, 1, 1, 2], "datatype": "FP32", "data": [0.5, -1.25]}
    return json.dumps({"inputs": [entry], **members}).encode()


def request_with(**members: object) -> bytes:
    entry = {"name": "image", "shape": [1, 1, 1, 2], "datatype": "FP32", "data": [0.5, -1.25], **members}
    return json.dumps(
        {"inputs": [{name: value for name, value in entry.items() if value != "gone"}]}
    ).encode()


@pytest.mark.parametrize("data", [[0.5, -1.25], [[[[0.5, -1.25]]]], [[0.5], [-1.25]]])
def test_numbers_may_be_flat_or_nested(data: list[object]) -> None:
    assert parse(request_with(data=data)).images.tolist() == [[[[0.5, -1.25]]]]


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=12))
@settings(max_examples=50)
def test_every_float32_arrives_with_its_bits_both_ways(numbers: list[float]) -> None:
    values = np.array(numbers[: len(numbers) // 2 * 2], np.float32).reshape(-1, 1, 1, 2)
    entry = {"name": "image", "shape": list(values.shape), "datatype": "FP32"}
    as_json = json.dumps({"inputs": [{**entry, "data": values.ravel().tolist()}]}).encode()
    head = json.dumps({"inputs": [{**entry, "parameters": {"binary_data_size": values.nbytes}}]}).encode()
    assert parse(as_json).images.tobytes() == values.tobytes()
    assert parse(head + values.tobytes(), str(len(head))).images.tobytes() == values.tobytes()
    assert parse(values.tobytes(), "0").images.tobytes() == values.tobytes()

    logits = np.resize(values.ravel(), (2, 3))
    plain, binary = (
        InferRequest(None, values, False, None, None),
        InferRequest(None, values, True, None, None),
    )
    body, length = encode_response(plain, logits, name="m", version="1", output=OUTPUT, labels=LABELS)
    assert length is None
    (output,) = json.loads(body)["outputs"]
    assert np.array(output["data"], np.float32).reshape(output["shape"]).tobytes() == logits.tobytes()
    body, length = encode_response(binary, logits, name="m", version="1", output=OUTPUT, labels=LABELS)
    assert body[length:] == logits.astype("<f4").tobytes()


def test_labels_are_written_as_bytes_elements() -> None:
    wanted = parse(request(outputs=[{"name": "logits", "parameters": {"classification": 2}}]))
    logits = np.array([[0.5, -1, 3]], np.float32)
    body, _ = encode_response(wanted, logits, name="m", version="1", output=OUTPUT, labels=LABELS)
    (output,) = json.loads(body)["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [1, 2])
    assert output["data"] == ["3.000000:2:c:at", "0.500000:0:ant"]

    parameters = {"classification": 1, "binary_data": True}
    wanted = parse(request(outputs=[{"name": "logits", "parameters": parameters}]))
    body, length = encode_response(wanted, logits, name="m", version="1", output=OUTPUT, labels=LABELS)
    assert body[length:] == struct.pack("<I", 15) + b"3.000000:2:c:at"


def test_an_output_says_more_than_the_request_about_its_form() -> None:
    both = {"parameters": {"binary_data_output": True}}
    assert parse(request(**both)).binary
    assert not parse(
        request(**both, outputs=[{"name": "logits", "parameters": {"binary_data": False}}])
    ).binary


def test_the_identifier_comes_back_and_is_left_out_if_there_was_none() -> None:
    logits = np.zeros((1, 3), np.float32)
    for identifier in ("7", "", None):
        wanted = parse(request() if identifier is None else request(id=identifier))
        body, _ = encode_response(wanted, logits, name="m", version="2", output=OUTPUT, labels=LABELS)
        assert json.loads(body).get("id") == identifier
        assert json.loads(body)["model_version"] == "2"


def test_the_client_may_allow_less_time() -> None:
    assert parse(request(parameters={"timeout": 1500})).timeout == 1500
    assert parse(request(parameters={"timeout": 0})).timeout is None


WRONG_JSON = {
    "empty": b"",
    "no JSON": b"{",
    "no UTF-8": b"\xff\xfe{}",
    "no object": b"[]",
    "nested too deeply": b"[" * 100_000,
    "NaN": request().replace(b"0.5", b"NaN"),
    "Infinity": request().replace(b"0.5", b"-Infinity"),
    "no inputs": b"{}",
    "inputs no list": b'{"inputs": 3}',
    "inputs empty": b'{"inputs": []}',
    "inputs of numbers": b'{"inputs": [3]}',
    "identifier no string": request(id=7),
    "parameters no object": request(parameters=[]),
    "timeout no number": request(parameters={"timeout": "soon"}),
    "timeout negative": request(parameters={"timeout": -1}),
    "timeout a truth value": request(parameters={"timeout": True}),
    "binary_data_output no truth value": request(parameters={"binary_data_output": 1}),
    "a sequence": request(parameters={"sequence_id": 5}),
    "a priority": request(parameters={"priority": 2}),
    "outputs no list": request(outputs={"name": "logits"}),
    "another output": request(outputs=[{"name": "other"}]),
    "an output twice": request(outputs=[{"name": "logits"}] * 2),
    "no class": request(outputs=[{"name": "logits", "parameters": {"classification": 0}}]),
    "too many classes": request(outputs=[{"name": "logits", "parameters": {"classification": 4}}]),
    "binary_data no truth value": request(outputs=[{"name": "logits", "parameters": {"binary_data": "yes"}}]),
    "shared memory": request(outputs=[{"name": "logits", "parameters": {"shared_memory_region": "r"}}]),
    "another input": request_with(name="other"),
    "name no string": request_with(name=["image"]),
    "another datatype": request_with(datatype="FP64"),
    "no datatype": request_with(datatype="gone"),
    "no shape": request_with(shape="gone"),
    "shape no list": request_with(shape=2),
    "shape too short": request_with(shape=[1, 2]),
    "shape of another image": request_with(shape=[1, 1, 2, 1]),
    "shape negative": request_with(shape=[-1, 1, 1, 2]),
    "shape of fractions": request_with(shape=[1.0, 1, 1, 2]),
    "shape of truth values": request_with(shape=[True, 1, 1, 2]),
    "shape enormous": request_with(shape=[2**62, 1, 1, 2]),
    "shape beyond 64 bits": request_with(shape=[10**30, 1, 1, 2]),
    "shape of a hundred sizes": request_with(shape=[1] * 100),
    "no data": request_with(data="gone"),
    "data no list": request_with(data=0.5),
    "too few numbers": request_with(data=[0.5]),
    "too many numbers": request_with(data=[0.5] * 3),
    "strings": request_with(data=["0.5", "1"]),
    "truth values": request_with(data=[True, False]),
    "a truth value among numbers": request_with(data=[True, 0.5]),
    "null": request_with(data=[None, 0.5]),
    "ragged": request_with(data=[[0.5], 1.0]),
    "an integer beyond float": request_with(data=[10**400, 1]),
    "data and bytes": request_with(parameters={"binary_data_size": 8}),
    "shared memory for the input": request_with(parameters={"shared_memory_region": "r"}),
}


@pytest.mark.parametrize("body", WRONG_JSON.values(), ids=WRONG_JSON.keys())
def test_a_wrong_request_is_refused(body: bytes) -> None:
    with pytest.raises(InputError):
        parse(body)


@pytest.mark.parametrize("length", ["-1", "x", "1.5", "9" * 40, "1000000", "٣", ""])
def test_a_wrong_length_of_the_json_is_refused(length: str) -> None:
    with pytest.raises(InputError, match="Inference-Header-Content-Length"):
        parse(request(), length)


@pytest.mark.parametrize("size", [0, 4, 9, -8, 8.0, "8", True, 2**70])
def test_a_wrong_number_of_bytes_is_refused(size: object) -> None:
    head = request_with(data="gone", parameters={"binary_data_size": size})
    with pytest.raises(InputError):
        parse(head + bytes(8), str(len(head)))


def test_bytes_that_nobody_announced_are_refused() -> None:
    with pytest.raises(InputError, match="8 bytes follow"):
        parse(request() + bytes(8), str(len(request())))


@pytest.mark.parametrize("size", [0, 1, 7, 9])
def test_raw_bytes_must_be_whole_images(size: int) -> None:
    with pytest.raises(InputError):
        parse(bytes(size), "0")


@settings(max_examples=200)
@given(st.binary(max_size=200), st.none() | st.text(max_size=4))
def test_no_bytes_whatever_raise_anything_else(body: bytes, length: str | None) -> None:
    try:
        parse(body, length)
    except InputError as error:
        assert str(error)


def test_json_of_more_values_than_any_request_needs_is_refused_before_it_is_read() -> None:
    numbers = 2 * 2 * 2  # twice what two images of two numbers hold, and 10,000 for all else
    full = request(parameters={"x": [1] * 9_980})
    assert parse(full).images.shape == (1, 1, 1, 2)
    with pytest.raises(InputError, match=rf"may hold {10_000 + numbers:,} values here, it has"):
        parse(request(parameters={"x": [1] * 10_010}))
    with pytest.raises(InputError, match="values here"):
        parse(b"[" * 20_000)
    with pytest.raises(InputError, match="nested too deeply"):
        parse(b"[" * 5_000)
