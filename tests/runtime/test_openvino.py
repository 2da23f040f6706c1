"""The backend for OpenVINO: what it gives, what it counts, what it refuses."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from saq_qat_runtime.backend import Backend
from saq_qat_runtime.errors import BackendUnavailable, InputError, ModelError
from saq_qat_runtime.openvino import OpenVinoBackend
from tests.runtime.networks import LABELS, SIDE, constant, float_network, images, model_of, quantized_network


def test_implements_the_protocol(network_bytes: bytes) -> None:
    backend: Backend = OpenVinoBackend(network_bytes, threads=1)
    assert backend.name == "openvino"
    assert openvino.__version__.startswith(backend.version)
    assert [(spec.name, spec.dtype, spec.shape) for spec in (*backend.inputs, *backend.outputs)] == [
        ("image", "float32", ("N", 3, SIDE, SIDE)),
        ("logits", "float32", ("N", LABELS)),
    ]
    backend.close()
    backend.close()


def test_gives_the_logits_of_another_engine(
    network_bytes: bytes, expected_logits: NDArray[np.float32]
) -> None:
    found = OpenVinoBackend(network_bytes).run({"image": images(4)})["logits"]
    np.testing.assert_allclose(found, expected_logits, rtol=1e-5, atol=1e-5)
    assert found.flags.owndata and found.flags.writeable


def test_memory_layout_does_not_matter(network_bytes: bytes) -> None:
    backend = OpenVinoBackend(network_bytes, threads=1)
    expected = backend.run({"image": images(4)})["logits"]
    for arranged in (np.asfortranarray(images(4)), images(8)[::2][::-1][::-1]):
        plain = backend.run({"image": np.ascontiguousarray(arranged)})["logits"]
        np.testing.assert_array_equal(backend.run({"image": arranged})["logits"], plain)
    np.testing.assert_array_equal(backend.run({"image": images(4)})["logits"], expected)


def test_gives_codes_where_the_model_has_them_as_outputs() -> None:
    model = quantized_network()
    model.graph.output.append(helper.make_tensor_value_info("x1_codes", TensorProto.UINT8, None))
    codes = OpenVinoBackend(model.SerializeToString(), threads=1).run({"image": images(2)})["x1_codes"]
    assert codes.dtype == np.uint8
    assert codes.shape == (2, 6, SIDE, SIDE) and codes.max() == 15


def test_names_the_nodes_of_each_kernel_in_their_order() -> None:
    model = quantized_network()
    for node in model.graph.node:
        node.name = f"{node.op_type}:{node.output[0]}"
    kernels = OpenVinoBackend(model.SerializeToString(), threads=1).kernels()
    quantized = {node.name for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert quantized <= {name for names in kernels for name in names}
    convolution = next(names for names in kernels if any(name.startswith("Conv:") for name in names))
    assert quantized.intersection(convolution), "the codes that it writes"


def test_many_threads_may_call_at_once(network_bytes: bytes) -> None:
    backend = OpenVinoBackend(network_bytes, threads=1)
    batches = [images(3, seed=seed) for seed in range(8)]
    expected = [backend.run({"image": batch})["logits"] for batch in batches]
    wrong: list[int] = []

    def call(index: int) -> None:
        for _ in range(20):
            if not np.array_equal(backend.run({"image": batches[index]})["logits"], expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=call, args=(index,)) for index in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_integers_are_counted_in_the_graph_that_runs() -> None:
    counts = [
        OpenVinoBackend(model.SerializeToString(), threads=1).integer_count()
        for model in (quantized_network(), float_network())
    ]
    assert [(count.integer, count.total) for count in counts] == [(3, 3), (0, 2)]
    assert counts[0].by_op == {"Convolution": 2, "FullyConnected": 1}


def test_no_float_becomes_int8_on_the_way_into_a_layer_of_int8_weights() -> None:
    """OpenVINO can quantize activations as it runs, which nobody asked for."""
    generator = np.random.default_rng(0)
    features = 3 * SIDE * SIDE
    codes = generator.integers(-127, 128, (LABELS, features)).astype(np.int8)
    constants = [
        constant("codes", codes),
        constant("scale", np.full(LABELS, 0.01, np.float32)),
        constant("zero", np.zeros(LABELS, np.int8)),
    ]
    nodes = [
        helper.make_node("Flatten", ["image"], ["features"]),
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["weight"], axis=0),
        helper.make_node("Gemm", ["features", "weight"], ["logits"], transB=1),
    ]
    content = model_of(nodes, constants).SerializeToString()
    found = OpenVinoBackend(content).run({"image": images(2)})["logits"]
    exact = images(2).reshape(2, -1).astype(np.float64) @ (codes.T * 0.01)
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "feeds",
    [
        {"image": images(1)[0]},
        {"image": images(1)[:, :2]},
        {"image": images(1).astype(np.float64)},
        {"image": images(1), "other": images(1)},
        {},
    ],
    ids=["rank", "channels", "dtype", "unknown", "none"],
)
def test_refused_feeds_are_input_errors(network_bytes: bytes, feeds: dict[str, NDArray[np.float32]]) -> None:
    with pytest.raises(InputError, match="OpenVINO refused the input"):
        OpenVinoBackend(network_bytes, threads=1).run(feeds)


def test_threads_must_be_positive(network_bytes: bytes) -> None:
    with pytest.raises(InputError, match="threads must be at least 1, got 0"):
        OpenVinoBackend(network_bytes, threads=0)


def test_models_that_no_bundle_needs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not an ONNX model"):
        OpenVinoBackend(b"nothing")
    model = float_network()
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights", size_threshold=0)
    with pytest.raises(ModelError, match="weights in other files"):
        OpenVinoBackend(path.read_bytes())
    nodes = [helper.make_node("Expand", ["image", "shape"], ["logits"])]
    endless = model_of(nodes, [constant("shape", np.array([1 << 20], np.int64))])
    with pytest.raises(ModelError, match="Expand is refused: no bundle has this operator"):
        OpenVinoBackend(endless.SerializeToString())


def test_a_model_that_openvino_refuses_is_named() -> None:
    nodes = [helper.make_node("Nonsense", ["image"], ["logits"], domain="nobody")]
    with pytest.raises(ModelError, match=r"OpenVINO .* cannot load the model"):
        OpenVinoBackend(model_of(nodes, []).SerializeToString(), any_operators=True)


def test_without_the_package_it_says_what_to_install(
    network_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendUnavailable, match=r"cannot be imported.*pip install openvino"):
        OpenVinoBackend(network_bytes)


SIGNALLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from saq_qat_runtime.openvino import OpenVinoBackend
backends = [OpenVinoBackend(Path(sys.argv[1]).read_bytes()) for _ in range(3)]
for backend in backends:
    spec = backend.inputs[0]
    backend.run({spec.name: np.zeros((2, *spec.shape[1:]), np.float32)})
    backend.close()
del backends, backend
noted = []
signal.signal(signal.SIGTERM, lambda number, _frame: noted.append(number))
for _ in range(100):
    os.kill(os.getpid(), signal.SIGTERM)
sys.exit(len(noted) != 100)
"""


def test_a_process_that_has_closed_its_backend_still_handles_signals(tmp_path: Path) -> None:
    """OpenVINO takes the stack of signal handlers with it when its last core goes."""
    (tmp_path / "model.onnx").write_bytes(quantized_network().SerializeToString())
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, str(tmp_path / "model.onnx")],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip  # one value a line is a page
    assert done.returncode == 0, done.stderr
