"""Every family of timm and torchvision through ``check``: ``python -m tests.families`` writes the table.

Results are kept in a file of lines, one a network, and a run that was interrupted goes on from there; delete
the file to measure anew. ``--again`` takes the networks that were not exact once more.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TABLE = HERE.parents[1] / "saq_qat" / "models" / "FAMILIES.md"
LONGEST = 3600
NOT_YET = {"result": "not yet measured"}
HEAD = """# Every family of timm and torchvision

The smallest network of each source file below sixty million parameters, with three input channels, at its
own image size, 4-bit weights and activations, for ONNX Runtime and TensorRT, through all that `check` does
with the untrained network: its integers are compared code by code. Versions: {versions}. Written by

    python -m tests.families

*x/y*: of the convolutions, linear layers and products in the graph that ONNX Runtime makes of the file, those
on integer kernels. **{exact} of {all} are exact**; the others stand with the words of `check`, or with what
stopped it (24 GiB of memory). {missing}
{without}

| library | file | network | millions | image | result |
|---|---|---|---|---|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("runs/families.jsonl"))
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--only", nargs="*", default=())
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), metavar=("K", "OF"))
    given = parser.parse_args()
    rows = json.loads((HERE / "networks.json").read_text(encoding="utf-8"))
    given.results.parent.mkdir(parents=True, exist_ok=True)
    wanted = [row for row in rows if row["network"] and (not given.only or row["network"] in given.only)]
    wanted.sort(key=lambda row: row["millions"])
    for row in wanted[given.part[0] :: given.part[1]]:
        known = read(given.results).get(key(row))
        if known is None or (known["result"] != "exact" and given.again) or row["network"] in given.only:
            found = tried(row)
            print(key(row), found, flush=True)
            with given.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key(row), **found}) + "\n")
    TABLE.write_text(table(rows, read(given.results)), encoding="utf-8")


def key(row: dict[str, Any]) -> str:
    return f"{row['library']}.{row['network']}"


def read(path: Path) -> dict[str, dict[str, Any]]:
    """The last result of each network."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {found["key"]: found for found in map(json.loads, lines)}


def tried(row: dict[str, Any]) -> dict[str, Any]:
    """In a process of its own, which may be killed for memory."""
    asked = (row["library"], row["network"], str(row["image"]), json.dumps(row["arguments"]))
    command = [sys.executable, "-m", "tests.families.one", *asked]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False)
    except subprocess.TimeoutExpired:
        return {"result": "failed", "words": f"took more than {LONGEST} s"}
    if done.returncode:
        return {"result": "failed", "words": (done.stderr.strip().splitlines() or ["killed"])[-1]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(rows: list[dict[str, Any]], results: dict[str, dict[str, Any]]) -> str:
    import timm
    import torchvision

    tried_rows = [row for row in rows if row["network"]]
    measured = [row for row in tried_rows if key(row) in results]
    missing = len(tried_rows) - len(measured)
    exact = sum(results[key(row)]["result"] == "exact" for row in measured)
    without = [f"{row['library']} {row['family']}" for row in rows if not row["network"]]
    head = HEAD.format(
        versions=f"timm {timm.__version__}, torchvision {torchvision.__version__.partition('+')[0]}",
        exact=exact,
        all=len(measured),
        missing=f"{missing} are not measured yet." if missing else "",
        without=f"No network so small have {', '.join(without)}." if without else "",
    )
    return head + "".join(line(row, results.get(key(row), NOT_YET)) for row in tried_rows)


def line(row: dict[str, Any], found: dict[str, Any]) -> str:
    words = found.get("words", "").replace("|", "\\|")
    result = (
        f"{found['integer']}/{found['total']}"
        if found["result"] == "exact"
        else f"{found['result']}: {words}".removesuffix(": ")
    )
    cells = (
        row["library"],
        row["family"],
        f"`{row['network']}`",
        f"{row['millions']:g}",
        row["image"],
        result,
    )
    return "| " + " | ".join(map(str, cells)) + " |\n"


if __name__ == "__main__":
    main()
