"""A plain client, which sends what no good client would."""

import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Address", "Reply", "binary_request", "json_request"]


@dataclass(frozen=True)
class Reply:
    """What a server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Address:
    """A running server. serving, server: its insides, for tests that look at them."""

    host: str
    port: int
    serving: Any = None
    server: Any = None

    @property
    def text(self) -> str:
        return f"{self.host}:{self.port}"

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        seconds: float = 30.0,
    ) -> Reply:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=seconds)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, found, response.read())
        finally:
            connection.close()

    def infer(self, body: bytes, header_length: int | str | None = None, model: str = "tiny") -> Reply:
        headers = {} if header_length is None else {"Inference-Header-Content-Length": str(header_length)}
        return self.ask("POST", f"/v2/models/{model}/infer", body, headers)

    def connect(self) -> socket.socket:
        return socket.create_connection((self.host, self.port), timeout=30)


def json_request(images: NDArray[np.float32], **changed: Any) -> bytes:
    """An inference request as JSON; `changed` replaces members of its input."""
    entry = {
        "name": "image",
        "shape": list(images.shape),
        "datatype": "FP32",
        "data": images.ravel().tolist(),
    }
    return json.dumps({"inputs": [{**entry, **changed}]}).encode()


def binary_request(images: NDArray[np.float32], *, binary_output: bool = True) -> tuple[bytes, int]:
    """An inference request with the images as bytes, and the length of its JSON."""
    size = {"binary_data_size": images.nbytes}
    entry = {"name": "image", "shape": list(images.shape), "datatype": "FP32", "parameters": size}
    request = {"inputs": [entry], "parameters": {"binary_data_output": binary_output}}
    head = json.dumps(request).encode()
    return head + images.tobytes(), len(head)
