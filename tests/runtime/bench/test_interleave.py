import json
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import groupby
from math import comb
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saq_qat_runtime.bench.environment import Environment, _quota, read_environment
from saq_qat_runtime.bench.interleave import Latency, cautions, interleave, measure
from saq_qat_runtime.errors import InputError
from saq_qat_runtime.kernels import IntegerCount

QUIET = Environment("cpu", "x86_64", "Linux", "3.11", 4, (0, 1, 2, 3), None, 0.0, "performance", {})


class Machine:
    """A clock that only its own calls move on."""

    def __init__(self) -> None:
        self.now = 0
        self.calls: list[str] = []

    def clock(self) -> int:
        return self.now

    def takes(self, nanoseconds: int, name: str = "") -> Callable[[], None]:
        def call() -> None:
            self.now += nanoseconds
            self.calls.append(name)

        return call


def test_measures_what_a_call_takes() -> None:
    machine = Machine()
    latency = measure(machine.takes(1000), warmup_seconds=1e-5, iterations=50, clock=machine.clock)
    assert latency.samples == (1000,) * 50
    assert len(machine.calls) == 10 + 50


def test_measures_for_a_time_and_at_least_once() -> None:
    machine = Machine()
    assert len(measure(machine.takes(1000), seconds=1e-4, clock=machine.clock).samples) == 100
    assert len(measure(machine.takes(1000), seconds=0.0, clock=machine.clock).samples) == 1


def test_takes_turns_and_compares_medians() -> None:
    machine = Machine()
    functions = {"float32": machine.takes(3000, "f"), "integer": machine.takes(1000, "i")}
    result = interleave(functions, warmup_seconds=0, iterations=20, clock=machine.clock)
    assert machine.calls == ["f", "i"] * 21
    assert result.baseline == "float32"
    assert result.speedups == {"float32": 1.0, "integer": 3.0}
    other = interleave(functions, baseline="integer", warmup_seconds=0, iterations=2, clock=machine.clock)
    assert other.speedups["float32"] == pytest.approx(1 / 3)


def test_warms_every_function_before_any_sample() -> None:
    machine = Machine()
    functions = {name: machine.takes(1000, name) for name in "ab"}
    interleave(functions, warmup_seconds=1e-5, iterations=3, clock=machine.clock)
    runs = [(name, len(list(group))) for name, group in groupby(machine.calls)]
    assert runs == [("a", 5), ("b", 5), ("a", 1), ("b", 1), ("a", 1), ("b", 1), ("a", 1), ("b", 1)]


@pytest.mark.parametrize("limits", [{}, {"iterations": 5, "seconds": 1.0}, {"iterations": 0}])
def test_wants_one_limit(limits: dict[str, int]) -> None:
    with pytest.raises(InputError, match="not both"):
        measure(lambda: None, **limits)  # type: ignore[arg-type]


def test_wants_a_known_baseline() -> None:
    with pytest.raises(InputError, match="baseline"):
        interleave({"a": int}, baseline="b", iterations=1)
    with pytest.raises(InputError, match="baseline"):
        interleave({}, iterations=1)


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=1500), st.sampled_from([500, 900, 950, 990]))
def test_percentiles_are_order_statistics_of_enough_samples(samples: list[int], per_mille: int) -> None:
    found = Latency(tuple(samples)).percentile(per_mille)
    if len(samples) * (1000 - per_mille) < 10_000:
        assert found is None
    else:
        assert found == np.percentile(samples, per_mille / 10, method="inverted_cdf")


@pytest.mark.parametrize(("per_mille", "needed"), [(900, 100), (950, 200), (990, 1000), (999, 10_000)])
def test_a_percentile_needs_ten_samples_beyond_it(per_mille: int, needed: int) -> None:
    assert Latency(tuple(range(needed - 1))).percentile(per_mille) is None
    assert Latency(tuple(range(needed))).percentile(per_mille) == needed * per_mille // 1000 - 1


@given(st.integers(1, 400))
def test_the_interval_of_the_median_is_the_narrowest_that_covers_95_percent(count: int) -> None:
    interval = Latency(tuple(range(count))).median_interval()
    if interval is None:
        assert 2 / 2**count > 0.05
        return
    low, high = interval
    assert low + high == count - 1

    def outside(rank: int) -> float:
        return sum(comb(count, k) for k in range(rank + 1)) / 2.0 ** (count - 1)

    assert outside(low) <= 0.05 < outside(low + 1)


def test_summary_is_plain_json_and_leaves_out_what_is_not_known() -> None:
    summary = Latency(tuple(range(1_000_000, 2_000_000, 10_000))).summary()
    assert json.loads(json.dumps(asdict(summary))) == asdict(summary)
    assert (summary.count, summary.min_ms, summary.max_ms, summary.p90_ms) == (100, 1.0, 1.99, 1.89)
    assert (summary.p95_ms, summary.p99_ms, summary.p999_ms) == (None, None, None)
    assert summary.median_ms == pytest.approx(1.495)
    assert summary.calls_per_second == pytest.approx(1000 / 1.495)


def test_a_quiet_machine_and_an_integer_model_need_no_caution() -> None:
    integer = IntegerCount(3, 3, {})
    assert cautions(Latency((1000,) * 100), QUIET, threads=4, integer=integer) == ()


@pytest.mark.parametrize(
    ("samples", "environment", "threads", "integer", "caution"),
    [
        ((1000,) * 99, QUIET, 1, None, "only 99 samples"),
        ((1000,) * 50 + (1200,) * 50, QUIET, 1, None, "not steady: the median moved by +20%"),
        ((1000,) * 100, replace(QUIET, load_average=3.5), 1, None, "busy machine: 0.5 of 4 cores free for 1"),
        ((1000,) * 100, replace(QUIET, quota=1.5), 2, None, "busy machine: 1.5 of 1.5 cores free for 2"),
        ((1000,) * 100, replace(QUIET, affinity=(0,)), 2, None, "1.0 of 1 cores free for 2"),
        ((1000,) * 100, replace(QUIET, governor="powersave"), 1, None, "governor is 'powersave'"),
        ((1000,) * 100, QUIET, 1, IntegerCount(0, 2, {}), "not to be called integer: float (0/2"),
        ((1000,) * 100, QUIET, 1, IntegerCount(1, 2, {}), "not to be called integer: partly integer (1/2"),
    ],
)
def test_cautions_say_why_figures_should_not_be_quoted(
    samples: tuple[int, ...],
    environment: Environment,
    threads: int,
    integer: IntegerCount | None,
    caution: str,
) -> None:
    (found,) = cautions(Latency(samples), environment, threads=threads, integer=integer)
    assert caution in found


def test_environment_is_plain_json() -> None:
    environment = read_environment()
    assert json.loads(json.dumps(asdict(environment)))["cores"] == environment.cores
    assert environment.cpu
    assert 0 < environment.usable_cores <= environment.cores
    assert environment.versions["numpy"] == np.__version__
    assert "no-such-package" not in read_environment(["no-such-package"]).versions


def test_finds_the_narrowest_quota_of_nested_control_groups(tmp_path: Path) -> None:
    inner = tmp_path / "cgroup" / "outer" / "inner"
    inner.mkdir(parents=True)
    (inner / "cpu.max").write_text("400000 100000\n")
    (inner.parent / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "cgroup" / "cpu.max").write_text("max 100000\n")
    (tmp_path / "membership").write_text("1:name=systemd:/x\n0::/outer/inner\n")
    assert _quota(tmp_path / "cgroup", tmp_path / "membership") == 1.5
    assert _quota(tmp_path / "nowhere", tmp_path / "nowhere") is None
