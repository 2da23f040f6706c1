"""Clients for a load test: each sends as fast as it is answered, and compares every answer in every bit."""

import http.client
import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from saq_qat_runtime.promises import read_golden
from saq_qat_runtime.serve.batch_rule import probe_images
from saq_qat_runtime.serve.model import ModelPlace
from saq_qat_runtime.serve.protocol import HEADER_LENGTH
from saq_qat_runtime.session import Session

__all__ = ["LoadPlan", "Tally", "plan_load", "send_load"]

_IMAGES = 16


@dataclass(frozen=True)
class LoadPlan:
    """Bodies to send, each with the bytes that must come back."""

    path: str
    headers: dict[str, str]
    bodies: tuple[bytes, ...]
    expected: tuple[bytes, ...]


class Tally:
    """What the clients of one server saw."""

    def __init__(self, requests: int) -> None:
        self.seconds: list[float] = []
        self.wrong: list[str] = []
        self._left = requests
        self._lock = threading.Lock()

    def take(self) -> bool:
        """Whether one more request is to be sent."""
        with self._lock:
            self._left -= 1
            return self._left >= 0

    def add(self, seconds: float, problem: str | None) -> None:
        """One answer."""
        with self._lock:
            self.seconds.append(seconds)
            self.wrong += [] if problem is None else [problem]


def plan_load(folder: Path) -> LoadPlan:
    """Requests of one image for the bundle in `folder`, and what its session answers; raises SessionError."""
    with Session.load(folder) as session:
        manifest = session.info.manifest
        images = probe_images(read_golden(folder, manifest)[0], _IMAGES)
        expected = tuple(session.run(image[np.newaxis]).tobytes() for image in images)
    shape = [1, *images.shape[1:]]
    size = {"binary_data_size": images[0].nbytes}
    entry = {"name": manifest.inputs[0].name, "shape": shape, "datatype": "FP32", "parameters": size}
    head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    path = f"/v2/models/{ModelPlace.of_bundle(folder).name}/infer"
    headers = {HEADER_LENGTH: str(len(head))}
    return LoadPlan(path, headers, tuple(head + image.tobytes() for image in images), expected)


def send_load(plan: LoadPlan, port: int, requests: int, clients: int) -> Tally:
    """Send `requests` in all to the server at `port` of this machine, from `clients` threads."""
    tally = Tally(requests)
    threads = [
        threading.Thread(target=_client, args=(plan, port, number, tally)) for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally


def _client(plan: LoadPlan, port: int, number: int, tally: Tally) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while tally.take():
        number = (number + 1) % len(plan.bodies)
        start = time.perf_counter()
        try:
            connection.request("POST", plan.path, plan.bodies[number], plan.headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            tally.add(time.perf_counter() - start, repr(error))
            continue
        seconds = time.perf_counter() - start
        right = response.status == 200 and content.endswith(plan.expected[number])
        tally.add(seconds, None if right else f"{response.status} {content[:200]!r}")
    connection.close()
