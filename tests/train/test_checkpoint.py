import errno
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pytest import MonkeyPatch

from saq_qat.errors import ArtifactError, SaqError
from saq_qat.quant.plan.records import (
    BatchNormRecord,
    CodesRecord,
    FloatRecord,
    LayerRecord,
    NetworkRecords,
    QuantizerRecord,
    WindowRecord,
    records_from_json,
    records_to_json,
)
from saq_qat.train import checkpoint as module
from saq_qat.train.checkpoint import (
    Checkpoint,
    FormatError,
    Position,
    newest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from saq_qat.train.state_file import progress_at_start

FILES = ("model.safetensors", "optimizer.safetensors", "state.json", "records.json", "sha256.json")

_IMAGE = QuantizerRecord(
    "image", "image", "saq", 8, CodesRecord(-128, 127, 127), None, ("conv",), "a", scale=0.1
)
_WEIGHT = QuantizerRecord(
    "conv", "weight", "saq", 4, CodesRecord(-15, 15, 15, 2), 0, ("conv",), "b", scale=1 / 3
)
RECORDS = NetworkRecords(
    (_IMAGE,),
    (
        LayerRecord(
            "conv", "conv", _WEIGHT, "weight", None, WindowRecord((1, 2), (0, 1), (1, 1), 3), True, False,
            BatchNormRecord("bn", 1e-5, True), None, "image", 8, mean=0.25, deviation=0.1,
        ),
    ),
    (BatchNormRecord("last", 1e-3, False),),
    (FloatRecord("norm", "LayerNorm", ("norm.weight",), (1e-6,)),),
    {"pool": "image"},
)  # fmt: skip  # one value a line is a page
"""Of no network; every kind of field."""


def make(step: int) -> Checkpoint:
    return Checkpoint(
        Position(stage=1, epoch=2, batch=3, step=step),
        "quantized",
        1,
        {"weight": torch.arange(6.0).reshape(2, 3).t(), "initialised": torch.tensor(True)},
        {"optimizer/momentum_buffer/weight": torch.full((3, 2), float(step))},
        {**progress_at_start(), "best": 91.25, "accuracy": {"top1": 1 / 3, "deploy_top1": None}},
        records=RECORDS,
    )


def test_a_checkpoint_reads_back_as_it_was_written(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "last", make(7))
    read = read_checkpoint(tmp_path / "last")
    assert (read.position, read.form, read.world_size) == (make(7).position, "quantized", 1)
    assert read.progress == make(7).progress
    assert (read.records, read.folder) == (RECORDS, tmp_path / "last")
    for name, tensor in make(7).model.items():
        assert torch.equal(read.model[name], tensor) and read.model[name].dtype == tensor.dtype
    assert torch.equal(read.training["optimizer/momentum_buffer/weight"], torch.full((3, 2), 7.0))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "missing"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, name: str, damage: str) -> None:
    write_checkpoint(tmp_path / "last", make(1))
    path = tmp_path / "last" / name
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes(content[: len(content) // 2 if damage == "truncated" else 0])
    with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
        read_checkpoint(tmp_path / "last")


def test_the_checkpoint_before_a_damaged_one_is_used_with_a_warning(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        write_checkpoint(tmp_path / "last", make(step))
    (tmp_path / "last" / "model.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"model\.safetensors.*at step 2"):
        found = newest_checkpoint(tmp_path / "last")
    assert found is not None and found.position.step == 2


def test_no_checkpoint_is_none_and_two_damaged_ones_are_an_error(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "last") is None
    for step in (1, 2):
        write_checkpoint(tmp_path / "last", make(step))
    for folder in ("last", "last.previous"):
        (tmp_path / folder / "state.json").write_bytes(b"{}")
    with pytest.raises(ArtifactError, match=r"state\.json"):
        newest_checkpoint(tmp_path / "last")


@pytest.mark.parametrize("renames", [0, 1])
def test_a_kill_between_the_renames_loses_at_most_one_checkpoint(
    tmp_path: Path, monkeypatch: MonkeyPatch, renames: int
) -> None:
    write_checkpoint(tmp_path / "last", make(1))
    rename, done = Path.rename, 0

    def killed(self: Path, target: Path) -> Path:
        nonlocal done
        if done == renames:
            raise KeyboardInterrupt
        done += 1
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(tmp_path / "last", make(2))
    monkeypatch.undo()
    found = newest_checkpoint(tmp_path / "last")
    assert found is not None and found.position.step == 1
    write_checkpoint(tmp_path / "last", make(3))
    assert read_checkpoint(tmp_path / "last").position.step == 3


def test_a_full_disk_leaves_the_checkpoint_before_and_nothing_half_written(
    tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    write_checkpoint(tmp_path / "last", make(1))

    def full(path: Path, content: bytes) -> None:
        path.write_bytes(content[:3])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "write_synced", full)
    with pytest.raises(SaqError, match="No space left"):
        write_checkpoint(tmp_path / "last", make(2))
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
    assert read_checkpoint(tmp_path / "last").position.step == 1


def of_format(folder: Path, number: int, form: str = "quantized") -> None:
    """Let the checkpoint say it is of another format; with hashes that fit, as its writer would."""
    state = json.loads((folder / "state.json").read_bytes()) | {"format": number, "form": form}
    (folder / "state.json").write_text(json.dumps(state))
    hashes = json.loads((folder / "sha256.json").read_bytes())
    hashes["state.json"] = hashlib.sha256((folder / "state.json").read_bytes()).hexdigest()
    (folder / "sha256.json").write_text(json.dumps(hashes))


def test_a_checkpoint_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "last", make(1))
    of_format(tmp_path / "last", 5)
    with pytest.raises(FormatError, match="format 5; this saq-qat reads formats up to 4"):
        read_checkpoint(tmp_path / "last")


@pytest.mark.parametrize("newer", [["last"], ["last.previous"], ["last", "last.previous"]])
def test_a_newer_format_is_never_taken_for_damage(tmp_path: Path, newer: list[str]) -> None:
    for step in (1, 2):
        write_checkpoint(tmp_path / "last", make(step))
    for name in newer:
        of_format(tmp_path / name, 5)
    if "last" not in newer:
        (tmp_path / "last" / "model.safetensors").write_bytes(b"")
    with pytest.raises(FormatError, match="format 5"):
        newest_checkpoint(tmp_path / "last")


def test_a_newer_format_whose_files_nobody_knows_is_refused_too(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "last", make(1))
    write_checkpoint(tmp_path / "last", make(2))
    (tmp_path / "last" / "sha256.json").unlink()
    (tmp_path / "last" / "state.json").write_text('{"format": 7}')
    with pytest.raises(FormatError, match="format 7"):
        newest_checkpoint(tmp_path / "last")


def test_without_records_a_float_network_is_read_and_a_quantized_one_refused(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "last", replace(make(1), records=None))
    of_format(tmp_path / "last", 1, "float")
    assert read_checkpoint(tmp_path / "last").records is None
    of_format(tmp_path / "last", 1)
    with pytest.raises(FormatError, match=r"does not record all.*Train again"):
        read_checkpoint(tmp_path / "last")


@pytest.mark.parametrize("field", ["clip_level_name", "codes"])
def test_records_that_lack_a_field_are_refused_by_name(tmp_path: Path, field: str) -> None:
    value = json.loads(json.dumps(records_to_json(RECORDS)))
    del value["quantizers"][0][field]
    with pytest.raises(ArtifactError, match=field):
        records_from_json(value, "records.json")


def test_files_honour_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_checkpoint(tmp_path / "last", make(1))
    finally:
        os.umask(before)
    assert {(tmp_path / "last" / name).stat().st_mode & 0o777 for name in FILES} == {0o640}


def test_a_link_in_the_place_of_a_checkpoint_is_named_and_left(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "elsewhere", make(1))
    (tmp_path / "last").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SaqError, match=r"last: is a link.*none was written\. Put the folder"):
        write_checkpoint(tmp_path / "last", make(2))
    assert (tmp_path / "last").is_symlink()


@pytest.mark.parametrize("beside", ["last.previous", "last.partial"])
@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_stands_where_a_checkpoint_is_put_meanwhile_is_named_and_left(
    tmp_path: Path, beside: str, kind: str
) -> None:
    write_checkpoint(tmp_path / "last", make(1))
    if kind == "link":
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / beside).symlink_to(tmp_path / "elsewhere")
    else:
        (tmp_path / beside).write_text("mine")
    before = read_checkpoint(tmp_path / "last").sha256
    with pytest.raises(SaqError, match=rf"{beside}: is a {kind}, .*Move it elsewhere") as refused:
        write_checkpoint(tmp_path / "last", make(2))
    assert "space" not in str(refused.value)
    assert (tmp_path / beside).is_symlink() == (kind == "link")
    assert read_checkpoint(tmp_path / "last").sha256 == before
