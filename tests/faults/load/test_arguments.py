"""Arguments of every public call that are of the wrong kind: typed errors that name the argument."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saq_qat_runtime.backend import MOST_THREADS
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.errors import BackendUnavailable, InputError, ModelError, SessionError
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend
from saq_qat_runtime.openvino import OpenVinoBackend
from saq_qat_runtime.preprocess import preprocess
from saq_qat_runtime.session import Session
from tests.runtime.networks import LABELS, images

NOT_A_COUNT: tuple[Any, ...] = (0, -1, 1.0, float("nan"), float("inf"), "a", "3", None, [1], True, images(1))
NOT_A_PATH: tuple[Any, ...] = (None, 3, 1.5, [], b"bundle", images(1), "with\0null", object())
NOT_A_FLAG: tuple[Any, ...] = (None, 0, 1, "no", [])
NOT_IMAGES: tuple[Any, ...] = (
    None, 3, 1.5, {}, object(), [None], [[1, 2]], [3], images(1), np.zeros((8, 8, 3), np.float64),
    np.zeros((8, 8, 3), object), np.zeros((8, 8), np.uint8), np.zeros((2, 8, 8, 3), np.uint8),
    (x for x in "a"),
)  # fmt: skip  # one value a line is a page
NOT_LOGITS: tuple[Any, ...] = (
    None, 3, [0.5] * LABELS, "logits", np.zeros((1, LABELS), np.float32), np.zeros(LABELS), np.array(None),
    np.zeros(LABELS - 1, np.float32), np.full(LABELS, np.nan, np.float32),
    np.full(LABELS, np.inf, np.float32),
)  # fmt: skip  # one value a line is a page
NOT_A_BATCH: tuple[Any, ...] = (
    None, 3, "image", [], images(1).tolist(), b"", images(1).astype(object), images(1).astype(complex),
    images(1).astype(np.float64), np.array("a"), np.array(None), images(1).view([("x", np.float32)]),
)  # fmt: skip  # one value a line is a page


def kind(value: object) -> str:
    """What an argument is called in the name of a test: alike in every process, unlike an address."""
    return type(value).__name__


@pytest.fixture
def session(bundle: Path) -> Session:
    return Session.load(bundle, threads=1)


class Unwilling:
    """A path that does not tell itself."""

    def __fspath__(self) -> str:
        raise RuntimeError("not today")


@pytest.mark.parametrize("folder", [*NOT_A_PATH, Unwilling()], ids=kind)
def test_a_folder_must_be_a_path(folder: Any) -> None:
    with pytest.raises(InputError, match="folder must be a path, got"):
        Session.load(folder)


@pytest.mark.parametrize("value", [value for value in NOT_A_COUNT if value is not None], ids=kind)
@pytest.mark.parametrize("name", ["threads", "max_batch"])
def test_a_count_must_be_a_positive_integer(bundle: Path, name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{name} must be (an integer|at least 1), got"):
        Session.load(bundle, **{name: value})


@pytest.mark.parametrize("value", NOT_A_COUNT, ids=kind)
def test_the_number_of_labels_must_be_a_positive_integer(session: Session, value: Any) -> None:
    with pytest.raises(InputError, match=r"top_k must be (an integer|at least 1), got"):
        session.predict(np.zeros((8, 8, 3), np.uint8), top_k=value)
    with pytest.raises(InputError, match=r"top_k must be (an integer|at least 1), got"):
        session.rank(np.zeros(LABELS, np.float32), value)


@pytest.mark.parametrize("value", NOT_LOGITS, ids=kind)
def test_what_is_ranked_must_be_the_logits_of_one_image(session: Session, value: Any) -> None:
    with pytest.raises(InputError, match=r"^logits must be .* got|^logits must be finite"):
        session.rank(value, 1)


def test_a_name_that_is_too_long_is_no_bundle_and_no_image(session: Session) -> None:
    with pytest.raises(ModelError, match="File name too long"):
        Session.load("x" * 300)
    with pytest.raises(InputError, match="the image cannot be read: File name too long"):
        session.predict("x" * 300)
    with pytest.raises(InputError, match=r"nofile\.jpg: there is no such image\. Name a file"):
        session.predict("nofile.jpg")
    with pytest.raises(InputError, match="whose __fspath__ raised RuntimeError: not today"):
        session.predict(Unwilling())


def test_a_batch_that_is_larger_than_the_memory_once_it_is_copied_is_refused(session: Session) -> None:
    """A broadcast array has no memory of its own; so many bytes no machine gives."""
    with pytest.raises(InputError, match=r"must fit the memory, got \(1000000000000, 3, 8, 8\)"):
        session.run(np.broadcast_to(images(1), (10**12, *images(1).shape[1:])))
    assert session(images(1)).shape == (1, LABELS)


def test_numbers_of_numpy_are_numbers(bundle: Path) -> None:
    session = Session.load(bundle, threads=np.int64(1), max_batch=np.uint8(2))  # type: ignore[arg-type]  # integers all the same
    assert len(session.predict(np.zeros((8, 8, 3), np.uint8), top_k=np.int32(2))[0]) == 2  # type: ignore[arg-type]  # as before


@pytest.mark.parametrize("engine", [OnnxRuntimeBackend, OpenVinoBackend])
@pytest.mark.parametrize("threads", [MOST_THREADS + 1, 1_000_000, 1 << 70])
def test_more_threads_than_any_machine_has_cores_are_refused(
    network_bytes: bytes, engine: Callable[..., Any], threads: int
) -> None:
    with pytest.raises(InputError, match="threads may be 1024 at most, got"):
        engine(network_bytes, threads=threads)


@pytest.mark.parametrize("value", NOT_A_FLAG, ids=kind)
@pytest.mark.parametrize("name", ["verify", "check_finite", "allow_failed_gate"])
def test_a_flag_must_be_true_or_false(bundle: Path, name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{name} must be True or False, got"):
        Session.load(bundle, **{name: value})


@pytest.mark.parametrize("value", [None, 3, ["auto"], images(1), b"auto"], ids=kind)
def test_a_backend_must_be_named(bundle: Path, value: Any) -> None:
    with pytest.raises(InputError, match="backend must be a name, got"):
        Session.load(bundle, value)
    with pytest.raises(BackendUnavailable):
        Session.load(bundle, "")


@pytest.mark.parametrize("value", NOT_IMAGES, ids=lambda value: type(value).__name__)
def test_what_is_no_image_is_refused_and_the_session_goes_on(session: Session, value: Any) -> None:
    with pytest.raises(InputError):
        session.predict(value)
    assert session(images(1)).shape == (1, LABELS)


@pytest.mark.parametrize("value", NOT_A_BATCH, ids=lambda value: type(value).__name__)
def test_what_is_no_batch_is_refused_and_the_session_goes_on(session: Session, value: Any) -> None:
    for call in (session, session.run):
        with pytest.raises(InputError):
            call(value)
    assert session(images(1)).shape == (1, LABELS)


@pytest.mark.parametrize("value", [None, 3, {}, "square"], ids=kind)
def test_settings_of_an_image_must_be_those_of_a_manifest(value: Any) -> None:
    with pytest.raises(InputError, match="settings must be a Preprocessing, as of a manifest"):
        preprocess(np.zeros((8, 8, 3), np.uint8), value)


@pytest.mark.parametrize("text", ["", "[]", "3", "null", '"a"', '{"schema_version": "3"}', "{" * 5000])
def test_a_manifest_of_anything_else_is_a_model_error(bundle: Path, text: str) -> None:
    (bundle / "manifest.json").write_text(text)
    with pytest.raises(SessionError):
        Manifest.load(bundle)
    with pytest.raises(SessionError):
        Session.load(bundle)
