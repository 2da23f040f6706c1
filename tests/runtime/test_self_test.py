"""The self-test of a bundle whose hashes fit: codes where they can be read back, logits elsewhere."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from saq_qat_runtime.bundle.manifest import CoverageRecord, Golden, Manifest, ProbesRecord
from saq_qat_runtime.bundle.records import FileRecord
from saq_qat_runtime.errors import ModelError, RuntimeFault
from saq_qat_runtime.recorded import Answers, Samples, to_arrays
from saq_qat_runtime.report.session_text import self_test_text
from saq_qat_runtime.session import Session
from tests.runtime.bundles import file_record
from tests.runtime.networks import images, run_plain

Change = Callable[..., None]
COVERAGE = CoverageRecord(200, 150, 40, 7)


def with_number(content: bytes, name: str, change: Callable[[NDArray[Any]], None]) -> bytes:
    """The model with other numbers in an initializer."""
    model = onnx.load_from_string(content)
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor).copy()
    change(values)
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    changed: bytes = model.SerializeToString()
    return changed


def negate_first(values: NDArray[Any]) -> None:
    values.reshape(-1)[0] *= -1


@pytest.fixture
def write_probes(bundle: Path, change_manifest: Change) -> Callable[[Samples], None]:
    def write(samples: Samples) -> None:
        np.savez(bundle / "probes.npz", **to_arrays(samples))  # type: ignore[arg-type]  # no array is called allow_pickle
        change_manifest(probes=ProbesRecord(file_record(bundle / "probes.npz"), COVERAGE))

    return write


@pytest.fixture
def probes(network_bytes: bytes) -> Samples:
    """Six samples of codes beside two images."""
    logits, codes = run_plain(network_bytes, images(2, seed=5))
    given = {"x1_codes": np.concatenate([codes["x1_codes"], 15 - codes["x1_codes"], codes["x1_codes"]])}
    return Samples(images(2, seed=5), given, Answers(codes, {"logits": logits}))


def test_codes_of_a_sound_bundle_agree(bundle: Path, expected_codes: dict[str, NDArray[np.uint8]]) -> None:
    with Session.load(bundle, threads=1) as session:
        found = session.self_test().codes
    assert found is not None
    assert (found.compared, found.mismatches) == (expected_codes["x1_codes"].size, 0)
    assert not found.failure


def test_a_wrong_weight_is_named_by_the_first_tensor_that_it_turns(
    bundle: Path, network_bytes: bytes, replace_model: Callable[[bytes], None], change_manifest: Change
) -> None:
    replace_model(with_number(network_bytes, "w1_codes", negate_first))
    (tensor,) = Manifest.load(bundle).tensors
    with Session.load(bundle, threads=1) as session:
        with pytest.raises(
            RuntimeFault, match=r"codes of x1_codes differ .* is due, .* was computed"
        ) as raised:
            session.self_test()
        assert "copy the bundle or export it again" in str(raised.value)
        assert not session.healthy
    change_manifest(tensors=(replace(tensor, ties=True),))
    with Session.load(bundle, threads=1) as session, pytest.raises(RuntimeFault, match="x1_codes differ"):
        session.self_test()  # far more than ties turn


@pytest.mark.parametrize("towards", [np.inf, 0.0])
def test_a_scale_that_is_off_by_one_float_is_not_what_the_manifest_states(
    bundle: Path, network_bytes: bytes, replace_model: Callable[[bytes], None], towards: float
) -> None:
    def step(values: NDArray[np.float32]) -> None:
        values[...] = np.nextafter(values, np.float32(towards))

    replace_model(with_number(network_bytes, "x1_scale", step))
    with (
        Session.load(bundle, threads=1) as session,
        pytest.raises(
            ModelError, match=r"scale of x1_codes is 0\.05.* in the manifest, but 0\.0[45].*QuantizeLinear"
        ),
    ):
        session.self_test()


def test_a_probe_finds_what_the_images_do_not_show(
    bundle: Path, probes: Samples, write_probes: Callable[[Samples], None]
) -> None:
    logits, codes = probes.answers.floats["logits"], dict(probes.answers.codes)
    given_logits = np.concatenate([logits, logits, logits])
    write_probes(replace(probes, answers=Answers(codes, {"logits": given_logits[:1]})))
    with Session.load(bundle, threads=1) as session:
        found = session.self_test()
        text = self_test_text(session.info, found, session.integer_count())
    assert found.codes is not None
    assert found.codes.compared > codes["x1_codes"].size
    assert "coverage: 93.75 % of the smallest changes of weights, biases and scales show" in " ".join(text)
    wrong = {"x1_codes": codes["x1_codes"].copy()}
    wrong["x1_codes"][1, 2, 3, 4] ^= 1
    write_probes(replace(probes, answers=Answers(wrong, {})))
    with (
        Session.load(bundle, threads=1) as session,
        pytest.raises(RuntimeFault, match=r"1 codes of x1_codes differ .*: at \[1, 2, 3, 4\]"),
    ):
        session.self_test()


def test_floats_of_a_probe_may_be_off_by_half_a_unit_of_the_last_place(
    bundle: Path, probes: Samples, write_probes: Callable[[Samples], None]
) -> None:
    logits = probes.answers.floats["logits"][:1]
    for factor, passes in ((1 + 1e-7, True), (1 + 1e-6, False)):
        floats = {"logits": (logits * factor).astype(np.float32)}
        write_probes(replace(probes, answers=Answers(probes.answers.codes, floats)))
        with Session.load(bundle, threads=1) as session:
            if passes:
                session.self_test()
                continue
            with pytest.raises(RuntimeFault, match="codes of logits differ"):
                session.self_test()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda a: {**a, "given/x9": a["given/x1_codes"]}, r"must hold codes of the 1 tensors"),
        (lambda a: {k: v for k, v in a.items() if k != "inputs"}, r"need images beside them"),
        (lambda a: {**a, "inputs": a["inputs"][:, :1]}, r"has no images"),
        (lambda a: {**a, "codes/x1_codes": a["codes/x1_codes"].astype(np.int8)}, r"must hold codes of"),
        (lambda a: {**a, "floats/logits": a["floats/logits"].astype(np.float64)}, r"no float32"),
        (lambda a: {**a, "given/x1_codes": a["given/x1_codes"][:0]}, r"without samples"),
    ],
)
def test_a_damaged_file_of_probes_is_refused(
    bundle: Path,
    probes: Samples,
    write_probes: Callable[[Samples], None],
    change_manifest: Change,
    spoil: Callable[[dict[str, NDArray[np.float32]]], dict[str, NDArray[np.float32]]],
    said: str,
) -> None:
    write_probes(probes)
    arrays = spoil(to_arrays(probes))
    np.savez(bundle / "probes.npz", **arrays)  # type: ignore[arg-type]  # no array is called allow_pickle
    change_manifest(probes=ProbesRecord(file_record(bundle / "probes.npz"), COVERAGE))
    with Session.load(bundle, threads=1) as session, pytest.raises(ModelError, match=said):
        session.self_test()


def test_shapes_that_the_model_refuses_are_a_fault(
    bundle: Path, probes: Samples, write_probes: Callable[[Samples], None]
) -> None:
    narrow = {"x1_codes": probes.given["x1_codes"][:, :2]}
    write_probes(replace(probes, given=narrow))
    with Session.load(bundle, threads=1) as session, pytest.raises((RuntimeFault, ModelError)):
        session.self_test()


def test_an_engine_that_keeps_its_codes_is_told_so(bundle: Path, change_manifest: Change) -> None:
    manifest = Manifest.load(bundle)
    (bundle / "model.openvino.onnx").write_bytes((bundle / "model.onnx").read_bytes())
    record: FileRecord = file_record(bundle / "model.openvino.onnx")
    golden = Golden(manifest.golden.file, {"onnxruntime": 0.0, "openvino": 10.0})
    change_manifest(models={**manifest.models, "openvino": record}, golden=golden)
    with Session.load(bundle, "openvino", threads=1) as session:
        found = session.self_test()
        text = self_test_text(session.info, found, session.integer_count())
    assert found.codes is None
    assert "codes: not compared, openvino keeps them to itself; logits alone were" in text


def test_a_coverage_of_impossible_counts_is_refused() -> None:
    with pytest.raises(ModelError, match="fit together"):
        CoverageRecord(10, 8, 3, 0)
    assert CoverageRecord(4, 0, 4, 0).share == 1.0
