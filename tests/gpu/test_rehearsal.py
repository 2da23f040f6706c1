"""The kit runs from end to end on a CPU, every part of it, and what it wrote can be judged afterwards."""

import json
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.gpu import __main__ as kit
from tests.gpu import deployed
from tests.gpu.images import read_splits
from tests.gpu.rtx import join_pieces

PART = ["--seeds", "1", "--bits", "2", "--rehearse"]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def part(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / f"{name}.json").read_text())  # type: ignore[no-any-return]  # of JSON


def test_integers_and_fake_quant_codes_are_compared(tmp_path: Path) -> None:
    assert kit.main(["--parts", "codes", *PART, "--output", str(tmp_path)]) == 0
    found = part(tmp_path, "codes")
    assert found["complete"]
    (network,) = found["networks"].values()
    assert len(network["products"]) == 20 and sum(row["sums"] for row in network["products"]) > 500_000
    assert sum(row["codes"] for row in network["products"]) > 500_000
    assert all(row["different_sums"] == row["different_codes"] == 0 for row in network["products"])
    assert all(row["different_codes"] == 0 and row["same_scale"] for row in network["fake_quant"]["eager"])


@pytest.mark.slow  # calibrates and trains a run of every arm
def test_training_is_searched_run_and_judged_as_integers(tmp_path: Path) -> None:
    output = ["--output", str(tmp_path), "--work", str(tmp_path / "work")]
    arms = ["--arms", "plain2x,saq_sum,sam"]
    assert kit.main(["--parts", "training", *PART, *output, *arms]) == 0
    found, trained = part(tmp_path, "search"), part(tmp_path, "training")
    assert found["complete"] and trained["complete"]
    assert {run["run"]["arm"] for run in trained["runs"]} == {"plain", "saq", "plain2x", "saq_sum", "sam"}
    assert all(len(run["train_losses"]) == run["run"]["epochs"] for run in trained["runs"])
    assert deployed.main([str(tmp_path), "--integer-images", "2"]) == 0
    judged = part(tmp_path, "deployed")
    assert len(judged["runs"]) == len(trained["runs"])
    assert all(run["deployed"]["integer_flips"] == 0 for run in judged["runs"])
    done = (tmp_path / "training.json").stat().st_mtime_ns
    assert kit.main(["--parts", "training", *PART, *output]) == 0
    assert (tmp_path / "training.json").stat().st_mtime_ns == done


@pytest.mark.slow  # times four kinds of steps
def test_steps_are_timed(tmp_path: Path) -> None:
    assert kit.main(["--parts", "steps", *PART, "--output", str(tmp_path)]) == 0
    (measured,) = part(tmp_path, "steps")["measured"].values()
    assert set(measured["images_per_second"]) == {"full_precision", "plain", "saq", "saq_tau_4"}


@pytest.mark.slow  # a whole training and export with its proof
def test_the_products_commands_train_and_export(tmp_path: Path) -> None:
    output = ["--output", str(tmp_path), "--work", str(tmp_path / "work")]
    assert kit.main(["--parts", "product", *PART, *output]) == 0
    assert part(tmp_path, "product")["resnet20"]["export"]["code"] == 0


def test_a_part_that_fails_says_why_and_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_options: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setitem(kit.RUN, "codes", fails)
    monkeypatch.setitem(
        kit.RUN, "steps", lambda options: kit.write_part(options.output, "steps", {}, complete=True)
    )
    assert kit.main(["--parts", "codes,steps", *PART, "--output", str(tmp_path)]) == 1
    assert "no such kernel" in part(tmp_path, "codes-failed")["failed"]
    assert part(tmp_path, "steps")["complete"]


def test_images_of_several_archives_are_one_data_set_in_sorted_order(tmp_path: Path) -> None:
    names = [
        f"{split}/{label}/{n}.webp" for split in ("val", "train") for label in ("b", "a") for n in (1, 0)
    ]
    archives = [tmp_path / "0.zip", tmp_path / "1.zip"]
    for place, archive in enumerate(archives):
        with zipfile.ZipFile(archive, "w") as opened:
            for number, name in enumerate(names[place::2]):
                file, square = BytesIO(), np.full((32, 32, 3), 2 * number + place, np.uint8)
                Image.fromarray(square).save(file, "webp", lossless=True)
                opened.writestr(name, file.getvalue())
    train, val = read_splits(archives, tmp_path / "work", workers=1)
    again, _ = read_splits(archives, tmp_path / "work", workers=1)
    assert np.array_equal(train.pixels, again.pixels)
    in_order = [names.index(name) for name in sorted(names)]
    both = np.concatenate([train.pixels, val.pixels])[:, 0, 0, 0].tolist()
    assert both == in_order
    assert train.labels.tolist() == val.labels.tolist() == [0, 0, 1, 1]


def test_pieces_of_a_wheel_are_joined_in_the_order_of_their_names(tmp_path: Path) -> None:
    for piece, content in (("a.whl.01", b"second"), ("a.whl.00", b"first "), ("b.whl", b"whole")):
        (tmp_path / "pieces").mkdir(exist_ok=True)
        (tmp_path / "pieces" / piece).write_bytes(content)
    joined = join_pieces(tmp_path / "pieces", tmp_path / "work")
    assert {wheel.name: wheel.read_bytes() for wheel in joined} == {
        "a.whl": b"first second",
        "b.whl": b"whole",
    }
