"""A verification tells an engine that departs from one that does not, and says in what."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from saq_qat_runtime.bench.cpu import BenchSize
from saq_qat_runtime.bundle.deploy import ThresholdsRecord
from saq_qat_runtime.bundle.expected import read_expected
from saq_qat_runtime.bundle.manifest import Golden, Manifest, bundle_sha256
from saq_qat_runtime.codes import CodeComparison
from saq_qat_runtime.errors import DataError, DepartureError, ModelError
from saq_qat_runtime.report.verify_text import verify_text
from saq_qat_runtime.session import Session
from saq_qat_runtime.verify.record import Answers, EngineVerification, Flip
from saq_qat_runtime.verify.run import failures_of, measured, to_json, verify_session
from tests.runtime.bundles import file_record
from tests.runtime.verify.conftest import COUNT, record, turned

STRICT, LOOSE = ThresholdsRecord(0.0, 0.0), ThresholdsRecord(100.0, 1.0)
SAME = Answers(100, 90.0, 90.0, 0, ())


def verified(bundle: Path, photos: Path, batch: int = 32) -> EngineVerification:
    with Session.load(bundle, threads=1) as session:
        return verify_session(session, bundle, photos, batch=batch)


def test_the_engine_that_was_recorded_departs_in_nothing(bundle: Path, photos: Path) -> None:
    counted: list[int] = []
    with Session.load(bundle, threads=1) as session:
        found = verify_session(session, bundle, photos, batch=8, on_images=counted.append)
    assert counted == [8, 8, 4]
    assert (found.failures, found.passed) == ((), True)
    assert found.answers == Answers(COUNT, 100.0, 100.0, 0, ())
    assert found.codes == CodeComparison(1, found.codes.compared if found.codes else 0, 0, {})
    assert found.golden_difference == 0
    assert (found.bundle_sha256, found.file) == (bundle_sha256(bundle), "model.onnx")
    found.require_passed()


@pytest.mark.parametrize("batch", [1, 3, COUNT, 99])
def test_answers_do_not_depend_on_the_batch(bundle: Path, photos: Path, batch: int) -> None:
    assert verified(bundle, photos, batch=batch).answers == Answers(COUNT, 100.0, 100.0, 0, ())


def test_flips_are_counted_listed_and_past_the_threshold_refused(
    bundle: Path, photos: Path, change_manifest: Callable[..., None]
) -> None:
    expected = read_expected(bundle, Manifest.load(bundle))
    record(bundle, change_manifest, turned(expected, 2))
    found = verified(bundle, photos)
    assert (found.answers.flips, found.answers.fake_quant_top1, found.answers.engine_top1) == (2, 90.0, 100.0)
    first = expected.predictions[0]
    assert found.answers.listed[0] == Flip(expected.images[0], first, (first + 1) % 5, first)
    assert found.failures == ("2 of 20 answers differ from the fake-quant network's, more than 5 %",)
    with pytest.raises(DepartureError, match=r"departs from what was trained: 2 of 20 answers") as raised:
        found.require_passed()
    assert raised.value.exit_code == 1


def test_one_changed_golden_code_is_found(
    bundle: Path, photos: Path, change_manifest: Callable[..., None]
) -> None:
    with np.load(bundle / "golden.npz") as golden:
        arrays = dict(golden)
    arrays["x1_codes"][0, 0, 0, 0] ^= 1
    np.savez(bundle / "golden.npz", **arrays)
    change_manifest(golden=Golden(file_record(bundle / "golden.npz"), {"onnxruntime": 0.0}))
    found = verified(bundle, photos)
    assert found.codes is not None
    assert found.codes.differing == {"x1_codes": 1}
    assert found.failures == (f"1 of {found.codes.compared:,} recorded codes differ",)


def test_golden_logits_that_differ_are_found(
    bundle: Path, photos: Path, change_manifest: Callable[..., None]
) -> None:
    with np.load(bundle / "golden.npz") as golden:
        arrays = {**golden, "logits": golden["logits"] + np.float32(0.5)}
    np.savez(bundle / "golden.npz", **arrays)
    change_manifest(golden=Golden(file_record(bundle / "golden.npz"), {"onnxruntime": 0.1}))
    (failure,) = verified(bundle, photos).failures
    assert failure == "golden logits differ by 0.5, 0.1 is allowed"


def test_golden_codes_of_other_tensors_than_the_manifest_lists_are_refused(
    bundle: Path, photos: Path, change_manifest: Callable[..., None]
) -> None:
    (tensor,) = Manifest.load(bundle).tensors
    change_manifest(tensors=(tensor, replace(tensor, name="x2", code_tensor="x2_codes")))
    with pytest.raises(ModelError, match=r"must hold the codes of the 2 tensors .* holds 1"):
        verified(bundle, photos)


@pytest.mark.parametrize(
    ("answers", "limits", "failures"),
    [
        (SAME, STRICT, 0),
        (replace(SAME, engine_top1=91.0), STRICT, 0),
        (replace(SAME, engine_top1=89.0), ThresholdsRecord(1.0, 0.0), 0),
        (replace(SAME, engine_top1=88.9), ThresholdsRecord(1.0, 0.0), 1),
        (replace(SAME, flips=5), ThresholdsRecord(1.0, 0.05), 0),
        (replace(SAME, flips=6), ThresholdsRecord(1.0, 0.05), 1),
        (replace(SAME, flips=100, engine_top1=0.0), LOOSE, 0),
        (replace(SAME, flips=100, engine_top1=0.0), STRICT, 2),
    ],
)
def test_thresholds_are_those_of_the_recipe(
    answers: Answers, limits: ThresholdsRecord, failures: int
) -> None:
    assert len(list(failures_of(answers, None, limits, 0.0, 0.0))) == failures


def test_logits_that_are_no_numbers_never_pass() -> None:
    assert len(list(failures_of(SAME, None, LOOSE, float("nan"), 1.0))) == 1


def test_missing_images_are_told_before_anything_is_computed(bundle: Path, photos: Path) -> None:
    (photos / "class" / "3.png").unlink()
    with pytest.raises(DataError, match=r"1 of 20 images of expected\.csv are not there: .*class/3\.png"):
        verified(bundle, photos)


def test_the_folder_that_was_meant_is_named(bundle: Path, photos: Path) -> None:
    root = photos.parent / "root"
    root.mkdir()
    photos.rename(root / "val")
    with pytest.raises(DataError, match=rf"Name the folder of the split: --data {root / 'val'}"):
        verified(bundle, root)


def test_a_damaged_image_is_named(bundle: Path, photos: Path) -> None:
    (photos / "class" / "3.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"class/3\.png is refused\. Not a readable image"):
        verified(bundle, photos)


def test_the_text_fits_80_columns_and_begins_with_the_verdict(
    bundle: Path, photos: Path, change_manifest: Callable[..., None]
) -> None:
    labels = Manifest.load(bundle).labels
    expected = read_expected(bundle, Manifest.load(bundle))
    record(bundle, change_manifest, turned(expected, 15))
    found = measured(verified(bundle, photos), bundle, BenchSize((1, 3), seconds=0.02, warmup_seconds=0.0))
    lines = verify_text(found, labels)
    assert lines[0].startswith("tiny: FAILED on onnxruntime")
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert "15 of 20, 5 % may" in text and "and 5 more" in text
    assert "batch 1, 1 thread: " in text and "batch 3, 1 thread: " in text


def test_the_json_holds_the_verdict_the_answers_and_the_latency(bundle: Path, photos: Path) -> None:
    found = measured(verified(bundle, photos), bundle, BenchSize((1,), seconds=0.02, warmup_seconds=0.0))
    value = json.loads(json.dumps(to_json(found), allow_nan=False))
    assert (value["passed"], value["answers"]["images"]) == (True, COUNT)
    assert value["bench"]["bundle_sha256"] == value["bundle_sha256"]
