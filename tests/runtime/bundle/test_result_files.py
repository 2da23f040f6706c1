"""Results are whole or absent, strict JSON, and read only in the version that this package knows."""

import json
import math
import os
from pathlib import Path

import pytest

from saq_qat_runtime.bundle.result_files import read_result, write_result
from saq_qat_runtime.errors import ModelError, ResultError, VersionError

VALUE = {"schema_version": 2, "found": {"top1": 97.5, "turns": (1, 2)}}


def test_a_result_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "report" / "x.json"
    write_result(path, VALUE)
    assert read_result(path, 2, "Measure again.") == json.loads(json.dumps(VALUE))
    assert [each.name for each in path.parent.iterdir()] == ["x.json"]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused_by_its_place(tmp_path: Path, number: float) -> None:
    path = tmp_path / "x.json"
    write_result(path, VALUE)
    with pytest.raises(ResultError, match=rf"x\.json: rows\[1\]\.loss is {number}"):
        write_result(path, {"rows": [{"loss": 1.0}, {"loss": number}]})
    assert read_result(path, 2, "") == json.loads(json.dumps(VALUE))


def test_a_disk_that_fails_leaves_the_older_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.json"
    write_result(path, VALUE)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResultError, match="No space left on device"):
        write_result(path, {"schema_version": 2})
    assert read_result(path, 2, "") == json.loads(json.dumps(VALUE))
    assert [each.name for each in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("version", ["1", "3", '"2"', "2.0", "null"])
def test_another_version_is_told_apart_from_damage(tmp_path: Path, version: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(f'{{"schema_version": {version}}}')
    with pytest.raises(VersionError, match=r"this package reads 2\. Measure again"):
        read_result(path, 2, "Measure again.")


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"schema_version": 2, "x": NaN}', b"\xff"])
def test_damage_is_told_with_the_command_that_mends_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="Measure again") as refused:
        read_result(path, 2, "Measure again.")
    assert not isinstance(refused.value, VersionError)
