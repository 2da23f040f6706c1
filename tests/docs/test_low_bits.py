"""docs/low-bits.md: its speeds are those of the tables in BENCHMARKS.md."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "low-bits.md").read_text(encoding="utf-8")
BENCHMARKS = (ROOT / "BENCHMARKS.md").read_text(encoding="utf-8")


def cells(heading: str, of_network: str | None = None) -> list[list[str]]:
    """Rows of the table whose header begins so; all, or those of a network, named in the first cell."""
    lines = BENCHMARKS[BENCHMARKS.index(heading) :].partition("\n\n")[0].splitlines()[2:]
    rows, name = [], ""
    for line in lines:
        row = [cell.strip() for cell in line.split("|")[1:-1]]
        name = row[0] or name
        if of_network in (None, name):
            rows.append(row)
    return rows


def test_the_range_of_speeds_is_that_of_all_networks_and_engines() -> None:
    on_openvino = cells("| times as fast as |", "fp32 on ONNX Runtime")
    on_onnxruntime = cells("| 224 x 224, W4A4 |")
    speeds = [float(speed) for row in on_openvino for speed in row[2:]]
    speeds += [float(row[column]) for row in on_onnxruntime for column in (2, 4)]
    assert f"{min(speeds):.1f} to {max(speeds):.0f} times float32, by network, engine and machine" in TEXT


def test_the_engines_own_int8_is_as_much_faster_as_is_said() -> None:
    (batch_8,) = (row for row in cells("| 224 x 224, W4A4 |", "ResNet-50") if row[1] == "8")
    found = re.search(r"is (\S+) times as fast on ResNet-50 at batch 8", TEXT)
    assert found is not None and found[1] == f"{1 / float(batch_8[3]):.2f}"
