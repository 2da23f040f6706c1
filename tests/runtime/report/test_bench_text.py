"""Text never flatters: slower is said, float is not called integer, thin samples give no percentile."""

import dataclasses

from saq_qat_runtime.bench.latency import Latency, sample_cautions
from saq_qat_runtime.bench.paired import paired_ratio
from saq_qat_runtime.bench.record import BUNDLE, FLOAT, Bench, Ratio
from saq_qat_runtime.report.bench_text import bench_text, bench_warnings, pace, speed_verdicts


def test_the_verdict_names_both_ratios_and_the_kernels(bench: Bench) -> None:
    (line,) = speed_verdicts(bench)
    assert "3.00x the speed of float32" in line
    assert "0.90x that of its static int8" in line
    assert "integer (3/3 products" in line


def test_a_slow_bundle_is_called_slow_and_a_float_one_float(slow_float_bench: Bench) -> None:
    (line,) = speed_verdicts(slow_float_bench)
    assert "SLOWER than float32 on ONNX Runtime: 0.50x" in line
    assert "float (0/3 products on integer kernels)" in line
    assert "integer (" not in line
    warnings = bench_warnings(slow_float_bench)
    assert any("slower than float32" in warning for warning in warnings)
    assert any("failed its exactness gate" in warning for warning in warnings)


def test_percentiles_without_enough_samples_are_dashes(bench: Bench) -> None:
    row = next(line for line in bench_text(bench) if line.strip().startswith(BUNDLE) and " .. " in line)
    cells = row.split(BUNDLE)[1].split()
    assert cells[0] == "10.1"
    assert cells[4:7] != ["-", "-", "-"]
    assert cells[5:7] == ["-", "-"], "120 samples carry p90, but neither p95 nor p99"


def test_without_float32_no_ratio_is_claimed(bench: Bench) -> None:
    alone = dataclasses.replace(
        bench,
        timings=(dataclasses.replace(bench.timings[0], over_float=None, over_int8=None),),
        candidates=bench.candidates[:1],
    )
    (line,) = speed_verdicts(alone)
    assert "float32 was not measured beside it" in line
    assert "x the speed" not in line


def test_what_nncf_makes_on_openvino_has_a_column_where_it_was_measured(bench: Bench) -> None:
    assert "over NNCF" not in "\n".join(bench_text(bench))
    beside = dataclasses.replace(bench.timings[0], over_nncf=Ratio(0.891, None, None))
    found = dataclasses.replace(bench, timings=(beside, *bench.timings[1:]))
    assert "0.90x that of its static int8, 0.89x that of NNCF's int8 on OpenVINO" in speed_verdicts(found)[0]
    lines = bench_text(found)
    start = next(i for i, line in enumerate(lines) if "over NNCF" in line)
    header, own, other = lines[start : start + 3]
    assert header.split()[-2:] == ["over", "NNCF"]
    assert (own.split()[-1], other.split()[-1]) == ("0.89x", "-")


def test_cautions_name_their_candidate_and_the_machine_only_once(bench: Bench) -> None:
    busy = "busy machine: 0.1 of 2 cores free for 1 thread"
    timings = tuple(dataclasses.replace(t, cautions=(busy, "not steady")) for t in bench.timings)
    warnings = bench_warnings(dataclasses.replace(bench, timings=timings))
    assert warnings.count(busy) == 1
    assert f"{FLOAT}, batch 1: not steady" in warnings


def test_every_size_and_note_is_printed(bench: Bench) -> None:
    text = " ".join(" ".join(bench_text(bench)).split())
    for part in ("1,000 parameters", "4.00x smaller", "6.40x smaller, in theory", "a note", "numpy 2"):
        assert part in text


def test_a_measurement_fits_eighty_columns_and_loses_no_word(bench: Bench) -> None:
    beside = dataclasses.replace(
        bench.timings[0], over_nncf=Ratio(0.891, 0.888, 0.899), cautions=("word " * 40,)
    )
    found = dataclasses.replace(bench, timings=(beside, *bench.timings[1:]), notes=("long " * 40,))
    lines = bench_text(found)
    assert max(map(len, lines)) <= 80
    words = " ".join(lines).split()
    assert words.count("long") == words.count("word") == 40
    for column in ("over NNCF", "images/s at median", "calls", "network"):
        assert any(column in line for line in lines), column


def test_few_samples_give_no_ratio_and_a_single_one_is_no_plural(bench: Bench) -> None:
    own = Latency((1_000_000,))
    assert paired_ratio(Latency((5,) * 4), Latency((1,) * 4)) is None
    assert paired_ratio(Latency((5,) * 5), Latency((1,) * 5)) is not None
    assert sample_cautions(own)[0].startswith("only 1 sample: ")
    thin = dataclasses.replace(bench.timings[0], latency=own.summary(), over_float=None, over_int8=None)
    assert pace(thin) == "1 ms; 1 sample, and a ratio needs 5"
