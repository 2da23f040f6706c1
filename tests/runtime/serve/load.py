"""Clients that send to a server as fast as they are answered, and look at every bit."""

import http.client
import threading
import time
from typing import Self

from saq_qat_runtime.session import Session
from tests.runtime.networks import images
from tests.runtime.serve.client import Address, binary_request

__all__ = ["Load"]


class Load:
    """Clients that send as fast as they are answered; every answer is compared with the session's."""

    def __init__(
        self, address: Address, session: Session, *, clients: int = 6, keep_alive: bool = True
    ) -> None:
        self.answered = 0
        self.refused = 0
        self.lost: list[str] = []
        self._address = address
        self._keep_alive = keep_alive
        self._expected = [session.run(images(8)[index : index + 1]).tobytes() for index in range(8)]
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._send, args=(index,)) for index in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def wait_for(self, answers: int) -> None:
        """Until so many more were answered."""
        wanted, end = self.answered + answers, time.monotonic() + 60
        while self.answered < wanted and not self.lost:
            assert time.monotonic() < end
            time.sleep(0.01)

    def _send(self, index: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._address.port, timeout=30)
        while not self._stop.is_set():
            try:
                if connection.sock is None:
                    connection.connect()
            except ConnectionRefusedError:
                self.refused += 1  # it never took the request: the client knows where it stands
                time.sleep(0.01)
                continue
            problem = self._ask(connection, index)
            with self._lock:
                self.answered += problem is None
                self.lost += [] if problem is None else [problem]
        connection.close()

    def _ask(self, connection: http.client.HTTPConnection, index: int) -> str | None:
        """What was wrong with the answer, if anything was."""
        body, length = binary_request(images(8)[index : index + 1])
        try:
            connection.request("POST", "/v2/models/tiny/infer", body, self._headers(length))
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return repr(error)
        start = int(response.headers.get("Inference-Header-Content-Length", "0"))
        right = response.status == 200 and content[start:] == self._expected[index]
        return None if right else f"{response.status} {content[:200]!r}"

    def _headers(self, length: int) -> dict[str, str]:
        connection = {} if self._keep_alive else {"Connection": "close"}
        return {"Inference-Header-Content-Length": str(length), **connection}
