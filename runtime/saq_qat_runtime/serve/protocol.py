"""Requests and responses of the Open Inference Protocol, version 2, over HTTP: bytes in, bytes out.

Sources: https://github.com/kserve/open-inference-protocol (inference_rest.md); Triton's extensions for binary
tensors, classification and parameters, as its Python client speaks them.
"""

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saq_qat_runtime.bundle.records import TensorSpec
from saq_qat_runtime.errors import InputError
from saq_qat_runtime.serve.tensors import (
    DATATYPES,
    checked_shape,
    from_bytes,
    from_json,
    strings_to_bytes,
    to_bytes,
)

__all__ = ["HEADER_LENGTH", "InferRequest", "encode_response", "json_length", "load_json", "parse_request"]

HEADER_LENGTH = "Inference-Header-Content-Length"
"""HTTP header: how many bytes of the body are JSON; the rest are tensors."""

_BESIDE_NUMBERS = 10_000
"""Values of a request's JSON beside the numbers of its tensor: far more than any that the protocol has."""

_REFUSED_PARAMETERS = {
    "sequence_id": "models here keep no state between requests",
    "priority": "requests are answered in the order of their arrival",
    "shared_memory_region": "tensors travel in the body",
}


@dataclass(frozen=True)
class InferRequest:
    """A checked request: images, and in which form the client wants the logits.

    binary: bytes after the JSON instead of numbers in it. classification: that many best labels instead of
    logits, or None. timeout: microseconds the client allows, or None.
    """

    identifier: str | None
    images: NDArray[np.float32]
    binary: bool
    classification: int | None
    timeout: int | None


def load_json(content: bytes, values: int = _BESIDE_NUMBERS) -> dict[str, Any]:
    """A JSON object; raises InputError for anything else, NaN and Infinity included.

    values: how many it may hold. An empty list takes three bytes of text, twenty times as much once it is
    read, and reading holds up every other thread, so they are counted first: by what stands before each.
    """
    found = sum(content.count(mark) for mark in (b",", b"[", b"{"))
    if found > values:
        raise InputError(f"The JSON may hold {values:,} values here, it has {found:,}. Send fewer images.")
    try:
        value = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:
        raise InputError("The body is JSON nested too deeply.") from None
    except ValueError as error:
        raise InputError(f"The body is not JSON: {error}.") from error
    if not isinstance(value, dict):
        raise InputError(f"The body must be a JSON object, got {type(value).__name__}.")
    return value


def parse_request(
    body: bytes,
    header_length: str | None,
    source: TensorSpec,
    output: TensorSpec,
    labels: int,
    max_batch: int,
) -> InferRequest:
    """Read an inference request for a model with one input and one output of `labels` logits.

    max_batch: images for which its JSON may hold numbers, twice over. header_length: value of HEADER_LENGTH;
    None: the body is JSON alone; "0": it is the input's bytes alone.
    Raises InputError for whatever the protocol does not allow.
    """
    length = json_length(header_length, len(body))
    if length == 0 and header_length is not None:
        return InferRequest(None, _raw_input(body, source), True, None, None)
    numbers = max_batch * math.prod(int(size) for size in source.shape[1:])
    request, rest = load_json(body[:length], 2 * numbers + _BESIDE_NUMBERS), body[length:]
    identifier = request.get("id")
    if identifier is not None and not isinstance(identifier, str):
        raise InputError("id must be a string.")
    parameters = _parameters(request, "the request")
    timeout = parameters.get("timeout")
    if timeout is not None and (type(timeout) is not int or timeout < 0):
        raise InputError("timeout must be a whole number of microseconds from 0.")
    images = _input(request, rest, source)
    binary, classification = _output(request, parameters, output, labels)
    return InferRequest(identifier, images, binary, classification, timeout or None)


def encode_response(
    request: InferRequest,
    logits: NDArray[np.float32],
    *,
    name: str,
    version: str,
    output: TensorSpec,
    labels: tuple[str, ...],
) -> tuple[bytes, int | None]:
    """The body, and the value of HEADER_LENGTH; None if the body is JSON alone. logits: (N, labels)."""
    if request.classification is None:
        shape, datatype = list(logits.shape), DATATYPES[output.dtype]
        binary = to_bytes(logits) if request.binary else b""
        numbers: list[Any] = [] if request.binary else logits.astype(np.float64).ravel().tolist()
    else:
        numbers = _classes(logits, request.classification, labels)
        shape, datatype = [len(logits), request.classification], "BYTES"
        binary = strings_to_bytes(numbers) if request.binary else b""
    answer: dict[str, Any] = {"name": output.name, "datatype": datatype, "shape": shape}
    answer |= {"parameters": {"binary_data_size": len(binary)}} if request.binary else {"data": numbers}
    response: dict[str, Any] = {"model_name": name, "model_version": version, "outputs": [answer]}
    if request.identifier is not None:
        response["id"] = request.identifier
    header = json.dumps(response, allow_nan=False).encode()
    return (header + binary, len(header)) if request.binary else (header, None)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def json_length(header: str | None, total: int) -> int:
    """How many of the body's `total` bytes are JSON, by HEADER_LENGTH; InputError for a wrong one."""
    if header is None:
        return total
    if not (header.isascii() and header.isdigit()) or len(header) > 18 or int(header) > total:
        rule = f"{HEADER_LENGTH} must be a whole number from 0 to the length of the body, {total}"
        raise InputError(f"{rule}, got {header[:40]!r}.")
    return int(header)


def _raw_input(body: bytes, source: TensorSpec) -> NDArray[np.float32]:
    """Images of the body's bytes alone; their number is that of the bytes."""
    sizes = [int(size) for size in source.shape[1:]]
    one = 4 * int(np.prod(sizes))
    if not body or len(body) % one:
        raise InputError(f"Input {source.name!r}: an image takes {one} bytes, got {len(body)} in all.")
    return from_bytes(body, (len(body) // one, *sizes), f"input {source.name!r}")


def _parameters(holder: dict[str, Any], where: str) -> dict[str, Any]:
    parameters = holder.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InputError(f"parameters of {where} must be a JSON object.")
    for name, reason in _REFUSED_PARAMETERS.items():
        if parameters.get(name):
            raise InputError(f"Parameter {name!r} of {where} is not supported: {reason}. Leave it out.")
    return parameters


def _named(request: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    """The one entry of the list `key`, which must be that of the tensor `name`."""
    entries = request.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f"{key} must be a list of JSON objects.")
    names = [entry.get("name") for entry in entries]
    if names != [name]:
        raise InputError(f"{key} must hold {name!r} once and nothing else, got {str(names)[:200]}.")
    entry: dict[str, Any] = entries[0]
    return entry


def _input(request: dict[str, Any], rest: bytes, source: TensorSpec) -> NDArray[np.float32]:
    entry = _named(request, "inputs", source.name)
    where = f"input {source.name!r}"
    expected = DATATYPES[source.dtype]
    if entry.get("datatype") != expected:
        found = str(entry.get("datatype"))[:40]
        raise InputError(f"{where}: datatype must be {expected}, got {found}. Convert it on purpose.")
    shape = checked_shape(entry.get("shape"), where)
    if len(shape) != len(source.shape) or shape[1:] != source.shape[1:]:
        wanted = [-1, *source.shape[1:]]
        raise InputError(f"{where}: shape must be {wanted}, -1 being the batch, got {list(shape)}.")
    size = _parameters(entry, where).get("binary_data_size")
    if size is None:
        if rest:
            raise InputError(f"{len(rest)} bytes follow the JSON, but {where} has no binary_data_size.")
        return from_json(entry.get("data"), shape, where)
    if "data" in entry:
        raise InputError(f"{where} has both data and binary_data_size. Send one of them.")
    if type(size) is not int or size != len(rest):
        raise InputError(f"{where}: binary_data_size is {str(size)[:40]}, {len(rest)} bytes follow the JSON.")
    return from_bytes(rest, shape, where)


def _output(
    request: dict[str, Any], parameters: dict[str, Any], output: TensorSpec, labels: int
) -> tuple[bool, int | None]:
    """Whether the output is wanted as bytes, and how many best labels instead of logits."""
    binary = parameters.get("binary_data_output", False)
    wanted: dict[str, Any] = {}
    if request.get("outputs"):
        where = f"output {output.name!r}"
        wanted = _parameters(_named(request, "outputs", output.name), where)
    binary = wanted.get("binary_data", binary)
    if not isinstance(binary, bool):
        raise InputError("binary_data and binary_data_output must be true or false.")
    count = wanted.get("classification")
    if count is not None and (type(count) is not int or not 1 <= count <= labels):
        raise InputError(f"classification must be a whole number from 1 to {labels}, got {str(count)[:40]}.")
    return binary, count


def _classes(logits: NDArray[np.float32], count: int, labels: tuple[str, ...]) -> list[str]:
    """`value:index:label` of the largest logits of each image, row by row."""
    return [
        f"{row[index]:f}:{index}:{labels[index]}"
        for row in logits
        for index in np.argsort(-row, kind="stable")[:count]
    ]
