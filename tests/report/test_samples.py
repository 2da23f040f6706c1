"""Single latencies are shown beside the summary of the same measurement alone."""

import dataclasses
import json
from pathlib import Path

import pytest

from saq_qat.errors import ArtifactError
from saq_qat.report.samples import read_samples
from saq_qat_runtime.bench.interleave import Latency
from saq_qat_runtime.bench.record import BUNDLE, write_bench
from saq_qat_runtime.errors import ModelError, VersionError
from tests.report.conftest import measured


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    write_bench(measured(), {1: {BUNDLE: Latency((5, 3, 4))}}, tmp_path)
    return tmp_path / "samples.json"


def test_samples_come_back_by_batch_and_candidate(samples: Path) -> None:
    assert read_samples(samples, measured()) == {1: {BUNDLE: (5, 3, 4)}}


def test_samples_of_another_measurement_are_not_shown(samples: Path) -> None:
    assert read_samples(samples, dataclasses.replace(measured(), created="2026-02-02")) is None
    assert read_samples(samples, measured(bundle_sha256="1" * 64)) is None


def test_damaged_samples_name_their_file_and_command(samples: Path) -> None:
    value = json.loads(samples.read_text())
    for change, error in (
        ({"nanoseconds": {"one": {}}}, ArtifactError),
        ({"nanoseconds": {"1": {BUNDLE: ["x"]}}}, ModelError),
        ({"schema_version": 1}, VersionError),
    ):
        samples.write_text(json.dumps(value | change))
        with pytest.raises(error, match=r"samples\.json.*saq-qat bench"):
            read_samples(samples, measured())
