"""A server among good and hostile clients, for minutes: nobody's answer is wrong, and nothing is left over.

`python -m tests.faults.serve.soak BUNDLE --minutes 10 --seed 0` prints a line a minute, and exits with 1 if
an answer was wrong, if a fault was answered otherwise than it should be, or if memory, descriptors or threads
stayed behind. Clients and server share the machine.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from saq_qat_runtime.serve.load_clients import LoadPlan, plan_load
from saq_qat_runtime.serve.protocol import HEADER_LENGTH
from tests.faults.serve.hostile import FAULTS, Target
from tests.faults.serve.payloads import packed, png
from tests.faults.serve.soak_clients import Tally, crowd, good_client, hostile_client, replace_models
from tests.runtime.serve.client import Address

_OPTIONS = (
    "--port 0 --threads 1 --queue 32 --deadline 60 --header-seconds 5 --body-seconds 5 --send-seconds 5 "
    "--max-body-mib 1 --shadow-backend onnxruntime --shadow-share 0.25 --drain-seconds 0"
)
_GROWTH = 1.05
_LATEST = 60.0


@dataclass(frozen=True)
class Server:
    """A running server. said: the lines of its log."""

    process: "subprocess.Popen[str]"
    address: Address
    said: list[str]

    def counted(self, name: str, labels: str = "") -> float:
        """The sum of a counter's lines whose labels match."""
        text = self.address.ask("GET", "/metrics", seconds=120).body.decode()
        found = re.findall(rf"^{name}_total{{.*{labels}.*}} (\S+)$", text, re.MULTILINE)
        return sum(map(float, found))

    def holds(self) -> tuple[float, int, int]:
        """MiB of memory, open descriptors, threads."""
        place = Path(f"/proc/{self.process.pid}")
        status = (place / "status").read_text()
        memory, threads = (int(re.findall(rf"{name}:\s+(\d+)", status)[0]) for name in ("VmRSS", "Threads"))
        return memory / 1024, len(list((place / "fd").iterdir())), threads


@contextmanager
def serving(models: Path) -> Iterator[Server]:
    """A server of a folder of models, as a process of its own; killed at the end if it still runs."""
    command = [sys.executable, "-m", "saq_qat_runtime.serve", str(models), *_OPTIONS.split()]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    said: list[str] = []
    for line in process.stderr:
        said.append(line)
        if line.startswith("ready on"):
            break
    else:
        raise SystemExit(f"The server did not start: {''.join(said)}")
    reader = threading.Thread(target=said.extend, args=(process.stderr,))
    reader.start()
    try:
        yield Server(process, Address("127.0.0.1", int(said[-1].rpartition(":")[2])), said)
    finally:
        process.kill()
        process.wait()
        reader.join()


def soak(server: Server, versions: Path, plan: LoadPlan, minutes: float, seed: int) -> list[str]:
    """All clients at once for so long; what was wrong, nothing if all is well."""
    target = Target(server.address, versions.name, plan.bodies[0], int(plan.headers[HEADER_LENGTH]))
    tally, stop = Tally(), threading.Event()
    problems = _one_of_each(target, tally)
    _wake_decoders(target)
    before = _at_rest(server)
    print(_HEAD, *_line(0.0, server, tally), sep="\n", flush=True)
    clients = [
        *(
            threading.Thread(target=good_client, args=(plan, target, f"good {seed} {n}", tally, stop))
            for n in range(4)
        ),
        *(
            threading.Thread(target=hostile_client, args=(target, f"hostile {seed} {n}", tally, stop))
            for n in range(8)
        ),
        threading.Thread(target=crowd, args=(target, tally, stop)),
        threading.Thread(
            target=replace_models,
            args=(
                versions,
                server.process.pid,
                lambda result: server.counted("saq_reloads", result),
                tally,
                stop,
            ),
        ),
    ]
    for client in clients:
        client.start()
    start = time.monotonic()
    settled = before[0]
    while (past := (time.monotonic() - start) / 60) < minutes and server.process.poll() is None:
        time.sleep(60 * min(1.0, minutes - past))
        print(*_line((time.monotonic() - start) / 60, server, tally), sep="\n", flush=True)
        settled = max(settled, server.holds()[0]) if past < minutes / 5 else settled
    stop.set()
    for client in clients:
        client.join()
    return problems + _judge(server, tally, before, settled)


_HEAD = (
    "| minute | good answers | wrong | busy (503) | faults | refused (4xx) | other 5xx | memory "
    "| descriptors | threads | p50 | p99 |\n|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def _line(minute: float, server: Server, tally: Tally) -> list[str]:
    memory, descriptors, threads = server.holds()
    seconds = tally.taken() or [0.0]
    half, most = (1e3 * float(np.percentile(seconds, share)) for share in (50, 99))
    refused, other = (
        server.counted("saq_requests", 'code="4..'),
        server.counted("saq_requests", 'code="50[^3]'),
    )
    faults = sum(tally.faults.values())
    return [
        f"| {minute:.1f} | {tally.good:,} | {len(tally.wrong)} | {tally.busy:,} | {faults:,} "
        f"| {refused:,.0f} | {other:.0f} | {memory:.0f} MiB | {descriptors} | {threads} "
        f"| {half:.0f} ms | {most:.0f} ms |"
    ]


def _one_of_each(target: Target, tally: Tally) -> list[str]:
    """Every fault by itself, which warms the server up too; what was answered otherwise than it should be."""
    problems = []
    for name, fault in FAULTS.items():
        heard = fault.act(target)
        tally.faults[name] += 1
        problems += [] if heard in fault.may else [f"{name}, alone: {heard}"]
    return problems


def _wake_decoders(target: Target) -> None:
    """Pictures that take their time, at the same moment: each of the server's threads for them starts."""
    picture = png(2000, 2000, packed(bytes(2001), 2000))
    ask = partial(target.address.ask, "POST", "/predict", picture, {"Content-Type": "image/png"}, seconds=120)
    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()


def _at_rest(server: Server) -> tuple[float, int, int]:
    """What the server holds once its descriptors and threads have been the same for two seconds."""
    looks = [server.holds()]
    while len(looks) < 20:
        time.sleep(0.1)
        found = server.holds()
        looks = [*looks, found] if found[1:] == looks[-1][1:] else [found]
    return looks[-1]


def _judge(server: Server, tally: Tally, before: tuple[float, int, int], settled: float) -> list[str]:
    """What is wrong once every client is gone."""
    problems = tally.wrong[:10] + tally.unexpected[:10]
    problems += [
        f"no {name} reload" for name in ("failed", "succeeded") if not server.counted("saq_reloads", name)
    ]
    end = time.monotonic() + _LATEST
    while (after := server.holds())[1:] != before[1:] and time.monotonic() < end:
        time.sleep(0.2)
    print(f"left behind: {after[1] - before[1]} descriptors, {after[2] - before[2]} threads")
    print(f"memory: {settled:.0f} MiB at most in the first fifth, {after[0]:.0f} MiB at the end")
    print(f"reloads: {dict(tally.reloads)}; faults of each kind: {min(tally.faults.values())} or more")
    problems += [] if after[1:] == before[1:] else [f"descriptors, threads: {before[1:]}, then {after[1:]}"]
    problems += (
        [] if after[0] <= _GROWTH * settled else [f"memory grew from {settled:.0f} to {after[0]:.0f} MiB"]
    )
    if server.counted("saq_requests", 'code="50[^3]'):
        problems.append("the server counted answers of 500 or 504")
    for path in ("live", "ready"):
        status = server.address.ask("GET", f"/v2/health/{path}").status
        problems += [] if status == 200 else [f"{path}: {status}"]
    server.process.terminate()
    code = server.process.wait(120)
    problems += [] if code == 0 else [f"exit code {code}"]
    return problems + [line for line in server.said if "Traceback" in line][:3]


def main() -> int:
    """Soak, and print what was wrong; exit code 1 if anything was."""
    parser = argparse.ArgumentParser("python -m tests.faults.serve.soak", description=__doc__)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    plan = plan_load(arguments.bundle)
    with tempfile.TemporaryDirectory() as place:
        versions = Path(place) / "models" / plan.path.split("/")[3]
        shutil.copytree(arguments.bundle, versions / "1")
        with serving(versions.parent) as server:
            problems = soak(server, versions, plan, arguments.minutes, arguments.seed)
    print("\n".join(f"wrong: {problem}" for problem in problems) or "nothing wrong, nothing left behind")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
