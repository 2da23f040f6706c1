"""Who talks to the server of a soak: good clients, hostile ones, crowds, and whoever changes its models."""

import contextlib
import http.client
import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from saq_qat_runtime.serve.load_clients import LoadPlan
from tests.faults.serve.hostile import FAULTS, Target, statuses

__all__ = ["Tally", "crowd", "good_client", "hostile_client", "replace_models"]

_CROWD = 60
_DAMAGE = {"manifest.json": b"{", "model.onnx": b"no model", "golden.npz": b""}


@dataclass
class Tally:
    """What all clients heard. seconds: of good answers since `taken` was called last. wrong: of good clients.
    unexpected: what hostile ones heard and should not have. faults: how often each was done."""

    good: int = 0
    busy: int = 0
    wrong: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    reloads: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)
    _seconds: list[float] = field(default_factory=list)

    def add(self, seconds: float, status: int, problem: str | None) -> None:
        """One answer to a good client."""
        with self.lock:
            self.busy += status == 503
            if problem is not None:
                self.wrong.append(problem)
            elif status == 200:
                self.good += 1
                self._seconds.append(seconds)

    def taken(self) -> list[float]:
        """Seconds of the good answers since the last call."""
        with self.lock:
            found, self._seconds = self._seconds, []
        return found


def good_client(plan: LoadPlan, target: Target, seed: str, tally: Tally, stop: threading.Event) -> None:
    """Ask with short pauses, now and then on a new connection; compare every answer in every bit."""
    chance = random.Random(seed)
    connection = http.client.HTTPConnection(target.address.host, target.address.port, timeout=120)
    while not stop.wait(chance.uniform(0, 0.02)):
        number = chance.randrange(len(plan.bodies))
        if chance.random() < 0.1:
            connection.close()
        start = time.monotonic()
        try:
            connection.request("POST", plan.path, plan.bodies[number], plan.headers)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            tally.add(0.0, 0, repr(error))
            continue
        told = response.status == 503 and int(response.headers.get("Retry-After", "0")) >= 1
        right = response.status == 200 and content.endswith(plan.expected[number])
        problem = None if told or right else f"{response.status} {content[:200]!r}"
        tally.add(time.monotonic() - start, response.status, problem)
    connection.close()


def hostile_client(target: Target, seed: str, tally: Tally, stop: threading.Event) -> None:
    """One fault after another, in an order that the seed decides; a server may always say it is too busy."""
    chance, names = random.Random(seed), sorted(FAULTS)
    while not stop.wait(chance.uniform(0, 0.05)):
        name = chance.choice(names)
        try:
            heard: object = FAULTS[name].act(target)
            expected = heard in FAULTS[name].may or heard == (503,)
        except (OSError, http.client.HTTPException) as error:
            heard, expected = error, False
        with tally.lock:
            tally.faults[name] += 1
            tally.unexpected += [] if expected else [f"{name}: {heard!r}"]


def crowd(target: Target, tally: Tally, stop: threading.Event) -> None:
    """Sixty clients at the same moment, every five seconds: each is answered or told that it is too much."""
    while not stop.wait(5):
        with contextlib.ExitStack() as open_ones:
            clients = [open_ones.enter_context(target.address.connect()) for _ in range(_CROWD)]
            request = target.request().replace(b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n")
            for client in clients:
                client.settimeout(120)
                client.sendall(request)
            heard = [statuses(b"".join(iter(partial(client.recv, 65536), b""))) for client in clients]
        with tally.lock:
            tally.faults["a crowd"] += 1
            tally.unexpected += [f"a crowd: {each}" for each in heard if each not in ((200,), (503,))]


def replace_models(
    folder: Path, process: int, counted: Callable[[str], float], tally: Tally, stop: threading.Event
) -> None:
    """Every ten seconds a reload that fails, or one that replaces the model by its equal.

    folder: holds the versions of one model. counted: reloads so far with a result, as the server counts them.
    """
    newest = 1
    damage = list(_DAMAGE.items())
    while not stop.wait(10):
        fails = sum(tally.reloads.values()) % 2 == 0
        result = "failed" if fails else "succeeded"
        before = counted(result)
        added = shutil.copytree(folder / str(newest), folder / str(newest + 1))
        if fails:
            name, content = damage[tally.reloads["failed"] % len(damage)]
            (added / name).write_bytes(content)
        else:
            shutil.rmtree(folder / str(newest))
            newest += 1
        os.kill(process, signal.SIGHUP)
        while counted(result) == before:
            time.sleep(0.1)
        if fails:
            shutil.rmtree(added)
        tally.reloads[result] += 1
