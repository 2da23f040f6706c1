"""The load test counts what it sends, and tells a wrong answer from a right one."""

import os
from pathlib import Path

import pytest

from saq_qat_runtime.errors import RuntimeFault
from saq_qat_runtime.serve.load_clients import LoadPlan, plan_load
from saq_qat_runtime.serve.load_test import load_server, measure_load, table
from tests.runtime.serve.client import Address


def test_every_request_is_answered_and_right(server: Address, integer_bundle: Path) -> None:
    found = load_server(plan_load(integer_bundle), server.port, os.getpid(), 40, 4, 0.0)
    assert (found.answered, found.wrong, found.clients) == (40, (), 4)
    assert 0 < found.p50_ms <= found.p90_ms
    assert found.p99_ms is None
    assert found.mean_batch >= 1
    assert found.rss_mib is None or found.rss_mib[1] > 1
    assert f"| {found.per_second:,.0f} |" in table([found])[-1]


def test_a_wrong_bit_and_a_refusal_are_wrong(server: Address, integer_bundle: Path) -> None:
    plan = plan_load(integer_bundle)
    off = tuple(each[:-1] + bytes([each[-1] ^ 1]) for each in plan.expected)
    found = load_server(LoadPlan(plan.path, plan.headers, plan.bodies, off), server.port, None, 10, 2, 0.0)
    assert (found.answered, len(found.wrong), found.rss_mib) == (0, 10, None)
    other = LoadPlan("/v2/models/other/infer", plan.headers, plan.bodies, plan.expected)
    assert "404" in load_server(other, server.port, None, 4, 2, 0.0).wrong[0]


def test_a_server_of_its_own_for_each_delay(integer_bundle: Path) -> None:
    options = ["--threads", "1", "--drain-seconds", "0"]
    (found,) = measure_load(integer_bundle, requests=20, clients=2, delays_ms=[1.0], options=options)
    assert (found.answered, found.batch_delay_ms) == (20, 1.0)


def test_a_server_that_does_not_start_says_why(integer_bundle: Path) -> None:
    with pytest.raises(RuntimeFault, match="max batch must be"):
        measure_load(integer_bundle, requests=1, clients=1, delays_ms=[0.0], options=["--max-batch", "0"])
