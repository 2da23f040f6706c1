"""How many requests a server answers, how fast, and whether its memory stays flat: on one machine, bounded.

`python -m saq_qat_runtime.serve.load_test BUNDLE` starts a server on the loopback device for each batch
delay, sends it requests of one image from several clients, compares every answer with the session's in every
bit, and prints a table. Clients and server share the machine's cores: the figures are of both together.
"""

import argparse
import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from saq_qat_runtime.bench.environment import read_environment
from saq_qat_runtime.errors import RuntimeFault, SessionError
from saq_qat_runtime.serve.load_clients import LoadPlan, plan_load, send_load

__all__ = ["LoadResult", "load_server", "main", "measure_load", "table"]

_ENOUGH_FOR_P99 = 1000


@dataclass(frozen=True)
class LoadResult:
    """One server under load.

    answered: requests with the right answer; wrong: with any other, each with its reason (the first 10).
    p50_ms to p99_ms: for which a client waited; p99 is None below 1000 requests. mean_batch: images in a run
    of the engine. rss_mib: memory of the server after a tenth of the requests, and at the end.
    """

    batch_delay_ms: float
    clients: int
    answered: int
    wrong: tuple[str, ...]
    seconds: float
    p50_ms: float
    p90_ms: float
    p99_ms: float | None
    mean_batch: float
    rss_mib: tuple[float, float] | None

    @property
    def per_second(self) -> float:
        """Requests answered in a second."""
        return self.answered / self.seconds


def measure_load(
    folder: Path, *, requests: int, clients: int, delays_ms: Sequence[float], options: Sequence[str] = ()
) -> list[LoadResult]:
    """A result for each batch delay; options: further ones of the server. Raises SessionError."""
    plan = plan_load(folder)
    results = []
    for delay in delays_ms:
        with _server(folder, [*options, "--batch-delay-ms", str(delay)]) as (port, process):
            results.append(load_server(plan, port, process, requests, clients, delay))
    return results


def load_server(
    plan: LoadPlan, port: int, process: int | None, requests: int, clients: int, delay_ms: float
) -> LoadResult:
    """Send `requests` to a server of this machine; process: its number, to watch its memory."""
    early = send_load(plan, port, max(clients, requests // 10), clients)
    before, start = _rss_mib(process), time.perf_counter()
    tally = send_load(plan, port, requests, clients)
    seconds, after = time.perf_counter() - start, _rss_mib(process)
    waited = 1e3 * np.array(tally.seconds)
    wrong = early.wrong + tally.wrong
    return LoadResult(
        batch_delay_ms=delay_ms,
        clients=clients,
        answered=len(waited) - len(tally.wrong),
        wrong=tuple(wrong[:10]),
        seconds=seconds,
        p50_ms=float(np.percentile(waited, 50)),
        p90_ms=float(np.percentile(waited, 90)),
        p99_ms=float(np.percentile(waited, 99)) if len(waited) >= _ENOUGH_FOR_P99 else None,
        mean_batch=_mean_batch(port),
        rss_mib=None if before is None or after is None else (before, after),
    )


def table(results: Sequence[LoadResult]) -> list[str]:
    """The results as a table in Markdown."""
    lines = [
        "| batch delay | clients | requests | a second | p50 | p90 | p99 | images a run | server's memory |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for each in results:
        p99 = "–" if each.p99_ms is None else f"{each.p99_ms:.1f} ms"
        memory = "–" if each.rss_mib is None else f"{each.rss_mib[0]:.0f} → {each.rss_mib[1]:.0f} MiB"
        lines.append(
            f"| {each.batch_delay_ms:g} ms | {each.clients} | {each.answered:,} | {each.per_second:,.0f} "
            f"| {each.p50_ms:.1f} ms | {each.p90_ms:.1f} ms | {p99} | {each.mean_batch:.1f} | {memory} |"
        )
    return lines


def main() -> int:
    """Measure, and print the table; exit code 1 if an answer was wrong."""
    parser = argparse.ArgumentParser("python -m saq_qat_runtime.serve.load_test", description=__doc__)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--requests", type=int, default=2000, help="for each delay (%(default)s)")
    parser.add_argument("--clients", type=int, default=8, help="at one time (%(default)s)")
    parser.add_argument("--delays-ms", type=float, nargs="+", default=[0.0, 1.0, 5.0], help="batch delays")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there too")
    parser.add_argument("--options", nargs=argparse.REMAINDER, default=[], help="of the server; last")
    arguments = parser.parse_args()
    try:
        results = measure_load(
            arguments.bundle, requests=arguments.requests, clients=arguments.clients,
            delays_ms=arguments.delays_ms, options=arguments.options,
        )  # fmt: skip  # one value a line is a page
    except SessionError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    environment = read_environment()
    print(f"{environment.cpu}, {environment.usable_cores:g} cores, load {environment.load_average}\n")
    print("\n".join(table(results)))
    if arguments.json is not None:
        found = {"environment": asdict(environment), "results": [asdict(result) for result in results]}
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    wrong = [reason for result in results for reason in result.wrong]
    print("\n".join(f"wrong: {reason}" for reason in wrong), file=sys.stderr, end="\n" if wrong else "")
    return 1 if wrong else 0


@contextmanager
def _server(folder: Path, options: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Port and process of a server that is ready; stopped at the end."""
    command = [sys.executable, "-m", "saq_qat_runtime.serve", str(folder), "--port", "0", *options]
    paths = os.pathsep.join(path for path in sys.path if path)
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
    )
    try:
        said = []
        for line in process.stderr or ():
            said.append(line)
            if line.startswith("ready on"):
                break
        else:
            raise RuntimeFault(f"The server did not start: {''.join(said).strip()}")
        yield int(said[-1].rpartition(":")[2]), process.pid
    finally:
        process.terminate()
        process.communicate()


def _mean_batch(port: int) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    images, runs = (
        sum(float(value) for value in re.findall(rf"^saq_batch_size_{kind}{{.*}} (\S+)$", text, re.MULTILINE))
        for kind in ("sum", "count")
    )
    return images / runs if runs else 0.0


def _rss_mib(process: int | None) -> float | None:
    """Memory of a process, None where the system does not say."""
    status = Path(f"/proc/{process}/status")
    if not status.is_file():
        return None
    found = re.search(r"^VmRSS:\s+(\d+) kB", status.read_text(), re.MULTILINE)
    return None if found is None else int(found[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
