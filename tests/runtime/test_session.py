import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from saq_qat_runtime.bundle.manifest import ComparisonRecord, Gate, Golden, Manifest, TensorSpec
from saq_qat_runtime.errors import BackendUnavailable, ClosedError, InputError, ModelError, RuntimeFault
from saq_qat_runtime.session import Session
from tests.runtime.bundles import file_record
from tests.runtime.networks import LABELS, SIDE, float_network, images

Batch: TypeAlias = NDArray[np.float32]
Change: TypeAlias = Callable[..., None]


@pytest.fixture
def session(bundle: Path) -> Session:
    return Session.load(bundle, threads=1)


def test_gives_the_logits_of_the_engine(session: Session, expected_logits: Batch) -> None:
    np.testing.assert_array_equal(session(images(4)), expected_logits)
    assert session.run(images(4)).flags.writeable


@pytest.mark.parametrize(
    "arrange",
    [
        lambda x: np.asfortranarray(x),
        lambda x: np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        lambda x: np.repeat(x, 2, axis=3)[:, :, :, ::2],
        lambda x: x[::-1][::-1],
    ],
    ids=["fortran", "channels last", "strided", "reversed"],
)
def test_memory_layout_does_not_matter(
    session: Session,
    expected_logits: Batch,
    arrange: Callable[[Batch], Batch],
) -> None:
    batch = arrange(images(4))
    batch.setflags(write=False)
    np.testing.assert_array_equal(session(batch), expected_logits)


def test_an_empty_batch_gives_empty_logits(session: Session) -> None:
    logits = session(images(0))
    assert logits.shape == (0, LABELS)
    assert logits.dtype == np.float32


@pytest.mark.parametrize(
    ("batch", "complaint"),
    [
        (images(1).astype(np.float64), r"must be float32, got <f8.*astype"),
        (images(1).astype(">f4"), r"must be float32, got >f4"),
        (images(1).astype(np.float16), r"got <f2"),
        (np.zeros((1, 3, SIDE, SIDE), np.uint8), r"got \|u1"),
        (images(1).tolist(), r"must be a numpy array, got list"),
        (np.ma.masked_array(images(1)), r"got MaskedArray"),
        (images(1)[0], r"shape \(N, 3, 8, 8\), got \(3, 8, 8\)\. A single image needs a batch dimension"),
        (images(1)[:, :2], r"got \(1, 2, 8, 8\)"),
        (images(1)[:, :, :, :7], r"got \(1, 3, 8, 7\)"),
        (images(1)[..., np.newaxis], r"got \(1, 3, 8, 8, 1\)"),
        (np.full((2, 3, SIDE, SIDE), np.nan, np.float32), r"384 of 384 values are NaN or infinite"),
        (np.full((1, 3, SIDE, SIDE), -np.inf, np.float32), r"finite"),
    ],
)
def test_refuses_wrong_input_and_stays_usable(session: Session, batch: Batch, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        session(batch)
    assert session.healthy
    assert session(images(1)).shape == (1, LABELS)


def test_finite_check_can_be_left_out(bundle: Path) -> None:
    with Session.load(bundle, check_finite=False) as session:
        assert session(np.full((1, 3, SIDE, SIDE), np.inf, np.float32)).shape == (1, LABELS)


def test_batches_may_be_limited(bundle: Path) -> None:
    with Session.load(bundle, max_batch=2) as session:
        with pytest.raises(InputError, match=r"2 inputs \(max_batch\), got 3"):
            session(images(3))
        assert len(session.predict([np.zeros((SIDE, SIDE, 3), np.uint8)] * 5)) == 5
    with pytest.raises(InputError, match="max_batch"):
        Session.load(bundle, max_batch=0)


def test_predicts_labels_of_images(session: Session, expected_logits: Batch) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    mean, deviation = np.array([[0.5, 0.4, 0.3], [0.2, 0.3, 0.25]], np.float32)
    batch = ((pixels.astype(np.float32) / np.float32(255) - mean) / deviation).transpose(2, 0, 1)[np.newaxis]
    logits = session(np.ascontiguousarray(batch))[0].astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum()
    (predictions,) = session.predict(pixels, top_k=3)
    assert [p.index for p in predictions] == np.argsort(-probabilities).tolist()[:3]
    np.testing.assert_allclose(
        [p.probability for p in predictions], np.sort(probabilities)[::-1][:3], rtol=1e-12
    )
    assert predictions[0].label == ("ant", "bee", "cat", "dog", "elk")[predictions[0].index]
    assert session.predict([Image.fromarray(pixels), pixels], top_k=3) == [predictions, predictions]


def test_predicts_all_labels_at_most_and_of_no_image_nothing(session: Session) -> None:
    (predictions,) = session.predict(np.zeros((SIDE, SIDE, 3), np.uint8), top_k=100)
    assert len(predictions) == LABELS
    assert sum(p.probability for p in predictions) == pytest.approx(1)
    assert session.predict([]) == []
    with pytest.raises(InputError, match="top_k"):
        session.predict([], top_k=0)


def test_self_test_passes_on_a_sound_bundle(session: Session) -> None:
    result = session.self_test()
    assert (result.compared, result.largest_difference) == (4 * LABELS, 0.0)


def write_golden(bundle: Path, change: Change, tolerance: float, **arrays: Batch) -> None:
    with np.load(bundle / "golden.npz") as old:
        arrays = {"x1_codes": old["x1_codes"], **arrays}
    np.savez(bundle / "golden.npz", **arrays)  # type: ignore[arg-type]  # no array is called allow_pickle
    change(golden=Golden(file_record(bundle / "golden.npz"), {"onnxruntime": tolerance}))


def test_self_test_failure_is_final(bundle: Path, change_manifest: Change, expected_logits: Batch) -> None:
    wrong = expected_logits + np.float32(0.01)
    write_golden(bundle, change_manifest, 0.0, inputs=images(4), logits=wrong)
    with Session.load(bundle) as session:
        with pytest.raises(RuntimeFault, match=r"golden logits may differ by 0\.0, but differ by 0\.01"):
            session.self_test()
        assert not session.healthy
        with pytest.raises(RuntimeFault, match="broke down earlier"):
            session(images(1))
    write_golden(bundle, change_manifest, 0.02, inputs=images(4), logits=wrong)
    with Session.load(bundle) as session:
        assert session.self_test().largest_difference == pytest.approx(0.01, rel=1e-3)


def test_self_test_never_passes_on_nan(bundle: Path, change_manifest: Change) -> None:
    wrong = np.full((4, LABELS), np.nan, np.float32)
    write_golden(bundle, change_manifest, 1.0, inputs=images(4), logits=wrong)
    with Session.load(bundle) as session, pytest.raises(RuntimeFault, match="differ by nan"):
        session.self_test()


def test_a_golden_file_without_its_arrays_is_a_model_error(bundle: Path, change_manifest: Change) -> None:
    write_golden(bundle, change_manifest, 0.0, inputs=images(4))
    with (
        Session.load(bundle) as session,
        pytest.raises(ModelError, match="no readable 'inputs' and"),
    ):
        session.self_test()
    write_golden(bundle, change_manifest, 0.0, inputs=images(4), logits=np.zeros((3, LABELS), np.float32))
    with Session.load(bundle) as session, pytest.raises(ModelError, match="which do not fit this model"):
        session.self_test()
    write_golden(bundle, change_manifest, 0.0, inputs=images(4), logits=np.zeros((4, 2), np.float32))
    with (
        Session.load(bundle) as session,
        pytest.raises(ModelError, match=r"logits \(4, 2\), which do not fit"),
    ):
        session.self_test()


def test_golden_file_is_never_unpickled(bundle: Path, change_manifest: Change) -> None:
    np.savez(bundle / "golden.npz", inputs=np.array([{}], object), logits=images(1))
    change_manifest(golden=Golden(file_record(bundle / "golden.npz"), {"onnxruntime": 0.0}))
    with Session.load(bundle) as session, pytest.raises(ModelError, match="allow_pickle=False"):
        session.self_test()


def test_eight_threads_get_what_one_gets(session: Session) -> None:
    batches = [images(1 + seed % 3, seed) for seed in range(24)]
    expected = [session(batch) for batch in batches]
    wrong: list[int] = []

    def work(offset: int) -> None:
        for step in range(200):
            index = (offset * 5 + step) % len(batches)
            if not np.array_equal(session(batches[index]), expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(offset,)) for offset in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_closing_waits_for_calls_and_later_calls_are_refused(bundle: Path) -> None:
    session = Session.load(bundle, threads=1)
    outcomes: list[str] = []

    def work() -> None:
        try:
            while True:
                session(images(8))
        except ClosedError:
            outcomes.append("closed")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    session(images(1))
    session.close()
    session.close()
    for thread in threads:
        thread.join(timeout=30)
    assert outcomes == ["closed"] * 4
    for use in (lambda: session(images(1)), session.self_test, session.integer_count):
        with pytest.raises(ClosedError, match="Load it again"):
            use()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # forking is what it tests
def test_a_forked_child_gets_an_error_instead_of_a_hang(session: Session) -> None:
    session(images(1))
    child = os.fork()
    if child == 0:
        try:
            session(images(1))
        except ClosedError:
            os._exit(17)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 17
    assert session(images(1)).shape == (1, LABELS)


def test_a_failing_engine_is_final(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(feeds: object) -> None:
        raise RuntimeFault("out of memory")

    monkeypatch.setattr(session._backend, "run", fail)
    with pytest.raises(RuntimeFault, match="out of memory"):
        session(images(1))
    monkeypatch.undo()
    with pytest.raises(RuntimeFault, match="broke down earlier and computes no more: out of memory"):
        session(images(1))


def test_counts_integer_kernels(session: Session) -> None:
    count = session.integer_count()
    assert (count.integer, count.total, count.by_op) == (3, 3, {"QGemm": 1, "QLinearConv": 2})
    assert count.label == "integer (3/3 products on integer kernels)"


def test_tells_what_it_runs(session: Session, bundle: Path) -> None:
    assert session.info.manifest == Manifest.load(bundle)
    assert session.info.model.name == "model.onnx"
    assert session.info.backend == "onnxruntime"
    assert session.info.threads == 1


@pytest.mark.parametrize("backend", ["OpenVINO", "", "cuda"])
def test_an_unknown_engine_is_refused(bundle: Path, backend: str) -> None:
    known = "'auto', 'tensorrt', 'tensorrt-lean', 'tensorrt-rtx', 'openvino', 'onnxruntime'"
    with pytest.raises(BackendUnavailable, match=f"This version runs: {known}"):
        Session.load(bundle, backend)


def test_an_unproved_bundle_loads_only_on_purpose(bundle: Path, change_manifest: Change) -> None:
    change_manifest(
        gate=Gate(False, True, (ComparisonRecord("deploy view = onnxruntime", True, False, 9, 1, "conv1"),))
    )
    with pytest.raises(
        ModelError, match=r"failed the proof.*\(deploy view = onnxruntime\).*allow_failed_gate"
    ):
        Session.load(bundle)
    assert Session.load(bundle, allow_failed_gate=True)(images(1)).shape == (1, LABELS)


def test_the_model_must_be_the_one_the_manifest_describes(bundle: Path, change_manifest: Change) -> None:
    manifest = Manifest.load(bundle)
    change_manifest(inputs=(replace(manifest.inputs[0], name="pixels"),))
    with pytest.raises(ModelError, match=r"takes .*'image'.*promises .*'pixels'"):
        Session.load(bundle)
    change_manifest(inputs=manifest.inputs, outputs=(TensorSpec("scores", "float32", ("N", LABELS)),))
    with pytest.raises(ModelError, match=r"promises \['scores'\] too"):
        Session.load(bundle)


def test_an_engine_that_gives_another_shape_is_a_fault(bundle: Path, change_manifest: Change) -> None:
    change_manifest(labels=("a", "b"), outputs=(TensorSpec("logits", "float32", ("N", 2)),))
    with (
        Session.load(bundle) as session,
        pytest.raises(RuntimeFault, match=r"\(1, 5\) instead of float32 \(1, 2\)"),
    ):
        session(images(1))


def test_hashes_are_checked_unless_told_otherwise(
    bundle: Path, replace_model: Callable[[bytes], None]
) -> None:
    (bundle / "model.onnx").write_bytes(float_network().SerializeToString())
    with pytest.raises(ModelError, match="the manifest says"):
        Session.load(bundle)
    with Session.load(bundle, verify=False) as session:
        assert session.integer_count().label.startswith("float (0/2")


def test_threads_must_be_positive(bundle: Path) -> None:
    with pytest.raises(InputError, match="threads must be at least 1, got 0"):
        Session.load(bundle, threads=0)


def test_memory_stays_flat(session: Session) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1])

    batch = images(4)
    for _ in range(2000):
        session(batch)
    before = resident()
    for _ in range(10_000):
        session(batch)
    assert resident() <= before * 1.01
