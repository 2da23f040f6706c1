import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from saq_qat_runtime.backend import Backend
from saq_qat_runtime.errors import BackendUnavailable, InputError, ModelError
from saq_qat_runtime.onnxruntime import EXACT_PAIRS, OnnxRuntimeBackend
from saq_qat_runtime.session import Session
from tests.runtime.networks import LABELS, SIDE, constant, float_network, images, model_of, quantized_network


def test_implements_the_protocol(network_bytes: bytes) -> None:
    backend: Backend = OnnxRuntimeBackend(network_bytes, threads=1)
    assert backend.name == "onnxruntime"
    assert backend.version == onnxruntime.__version__
    assert [(spec.name, spec.dtype, spec.shape) for spec in (*backend.inputs, *backend.outputs)] == [
        ("image", "float32", ("N", 3, SIDE, SIDE)),
        ("logits", "float32", ("N", LABELS)),
    ]
    backend.close()
    backend.close()


def test_gives_codes_where_the_model_has_them_as_outputs() -> None:
    model = quantized_network()
    model.graph.output.append(helper.make_tensor_value_info("x1_codes", TensorProto.UINT8, None))
    backend = OnnxRuntimeBackend(model.SerializeToString(), threads=1)
    outputs = backend.run({"image": images(2)})
    assert outputs["x1_codes"].dtype == np.uint8
    assert outputs["x1_codes"].shape == (2, 6, SIDE, SIDE)
    assert outputs["x1_codes"].max() == 15
    assert [spec.dtype for spec in backend.outputs] == ["float32", "uint8"]


def test_idle_threads_leave_the_cores_to_other_sessions() -> None:
    """Spinning threads would show up as processor time of a process that only sleeps."""
    backend = OnnxRuntimeBackend(quantized_network().SerializeToString(), threads=4)
    backend.run({"image": images(64)})
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.05


def test_a_float_network_is_counted_as_float() -> None:
    count = OnnxRuntimeBackend(float_network().SerializeToString(), threads=1).integer_count()
    assert (count.integer, count.total) == (0, 2)


@pytest.mark.parametrize(
    ("feeds", "complaint"),
    [
        ({"image": images(1).astype(np.float64)}, "Unexpected input data type"),
        ({"image": images(1)[0]}, "Invalid rank"),
        ({"image": images(1), "other": images(1)}, "other"),
        ({}, "image"),
    ],
)
def test_maps_refused_feeds_to_input_errors(
    network_bytes: bytes, feeds: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]], complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint):
        OnnxRuntimeBackend(network_bytes, threads=1).run(feeds)


def with_opset(version: int) -> onnx.ModelProto:
    model = float_network()
    model.opset_import[0].version = version
    return model


def with_ir(version: int) -> onnx.ModelProto:
    model = float_network()
    model.ir_version = version
    return model


def unknown_operator() -> onnx.ModelProto:
    return model_of([helper.make_node("Nonsense", ["image"], ["logits"], domain="elsewhere")], [])


@pytest.mark.parametrize(
    "model", [with_opset(99), with_ir(99), unknown_operator()], ids=["opset", "ir", "operator"]
)
def test_a_model_the_engine_cannot_load_is_a_model_error(model: onnx.ModelProto) -> None:
    with pytest.raises(ModelError, match=r"ONNX Runtime .* cannot load the model: .*update onnxruntime"):
        OnnxRuntimeBackend(model.SerializeToString(), any_operators=True)


@pytest.mark.parametrize("content", [b"", b"garbage" * 50, b'{"a": 1}'], ids=["empty", "garbage", "json"])
def test_a_file_that_is_no_model_is_a_model_error(
    replace_model: Callable[[bytes], None], bundle: Path, content: bytes
) -> None:
    replace_model(content)
    with pytest.raises(ModelError, match="The model file"):
        Session.load(bundle)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_model_is_a_model_error(
    replace_model: Callable[[bytes], None], bundle: Path, network_bytes: bytes, share: float
) -> None:
    replace_model(network_bytes[: int(len(network_bytes) * share)])
    with pytest.raises(ModelError, match="cut short"):
        Session.load(bundle)


@pytest.mark.parametrize("location", ["../secret", "/etc/hosts", "weights.bin", "link"])
def test_weights_in_other_files_are_never_read(
    replace_model: Callable[[bytes], None], bundle: Path, location: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(b"\x00" * 4 * LABELS)
    (bundle / "link").symlink_to(tmp_path / "secret")
    (bundle / "weights.bin").hardlink_to(tmp_path / "secret")
    model = float_network()
    tensor = model.graph.initializer.add(name="w9", data_type=TensorProto.FLOAT, dims=[LABELS])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    model.graph.node.add(op_type="Add", input=["logits", "w9"], output=["more"])
    replace_model(model.SerializeToString())
    with pytest.raises(ModelError, match="weights in other files"):
        Session.load(bundle)


def test_a_small_file_cannot_ask_for_endless_memory() -> None:
    size = constant("size", np.array([1 << 40], np.int64))
    nodes = [helper.make_node("ConstantOfShape", ["size"], ["logits"])]
    with pytest.raises(ModelError, match="ConstantOfShape is refused: no bundle has this operator"):
        OnnxRuntimeBackend(model_of(nodes, [size]).SerializeToString())


def test_a_missing_engine_says_how_to_install_it(
    network_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BackendUnavailable, match="pip install onnxruntime"):
        OnnxRuntimeBackend(network_bytes)


def test_a_missing_provider_is_not_replaced(network_bytes: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["AzureExecutionProvider"])
    with pytest.raises(BackendUnavailable, match="CPUExecutionProvider"):
        OnnxRuntimeBackend(network_bytes)


FUZZ = """
import random, resource, sys
import numpy as np
from saq_qat_runtime.errors import SessionError
from saq_qat_runtime.onnxruntime import EXACT_PAIRS, OnnxRuntimeBackend
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
original, image, outcomes = open(sys.argv[1], "rb").read(), np.zeros((1, 3, 8, 8), np.float32), set()
for seed in range(int(sys.argv[2])):
    generator, content = random.Random(seed), bytearray(original)
    for _ in range(generator.randint(1, 3)):
        content[generator.randrange(len(content))] = generator.randrange(256)
    try:
        OnnxRuntimeBackend(bytes(content), threads=1).run({"image": image})
        outcomes.add("ran")
    except SessionError as error:
        outcomes.add(type(error).__name__)
print(*sorted(outcomes))
"""


def test_damaged_models_raise_nothing_but_session_errors(network_bytes: bytes, tmp_path: Path) -> None:
    """In a process of its own: a crash of the engine would fail this test, not end the test run."""
    (tmp_path / "model.onnx").write_bytes(network_bytes)
    command = [sys.executable, "-c", FUZZ, str(tmp_path / "model.onnx"), "300"]
    environment = {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {"ran", "ModelError"} <= set(done.stdout.split())


def test_exact_kernels_are_asked_for_where_a_model_needs_them_and_nowhere_else(network_bytes: bytes) -> None:
    for exact in (False, True):
        options = OnnxRuntimeBackend(network_bytes, threads=1, exact_pairs=exact)._options()
        assert _entry(options) == ("1" if exact else "")


def _entry(options: Any) -> str:
    try:
        return str(options.get_session_config_entry(EXACT_PAIRS))
    except RuntimeError:
        return ""
