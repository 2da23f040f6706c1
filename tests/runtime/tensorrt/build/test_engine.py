"""Engines built for real by TensorRT-RTX in processes of their own: what is accepted, audited and refused."""

from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from saq_qat.errors import ArtifactError, EngineError, RecipeError
from saq_qat_runtime.bundle.files import file_sha256, sha256
from saq_qat_runtime.bundle.records import TensorSpec
from saq_qat_runtime.tensorrt.build.engine import BuiltEngine, build_engine, write_engine
from saq_qat_runtime.tensorrt.build.options import BuildOptions
from saq_qat_runtime.tensorrt.engine_record import EngineRecord, Profile
from tests.export.lint.lint_graphs import Net

pytest.importorskip("tensorrt_rtx", reason="needs the extra rtx")

OPTIONS = BuildOptions(flavour="tensorrt-rtx")


def build(model: onnx.ModelProto, folder: Path, options: BuildOptions = OPTIONS) -> BuiltEngine:
    path = folder / "model.tensorrt.onnx"
    onnx.save(model, path)
    return build_engine(path, options)


def refusal(model: onnx.ModelProto, folder: Path, options: BuildOptions = OPTIONS) -> str:
    with pytest.raises(EngineError) as raised:
        build(model, folder, options)
    return str(raised.value)


def residual_network() -> onnx.ModelProto:
    """Convolution, ReLU, depthwise convolution, a sum with the shortcut, pooling and a linear layer."""
    net = Net()
    image = net.pair(net.input(["N", 3, 16, 16]))
    stem = net.pair(net.node("Relu", net.conv(image, 3)))
    depthwise = net.pair(net.conv(stem, group=16))
    total = net.pair(net.node("Add", depthwise, stem))
    features = net.node("Flatten", net.pair(net.node("GlobalAveragePool", total)))
    return net.model(net.node("Gemm", features, net.weight(10, 16), net.floats(10), transB=1))


def single_conv(**scale: object) -> onnx.ModelProto:
    net = Net()
    return net.model(net.conv(net.pair(net.input([2, 16, 8, 8]), **scale)))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("bundle") / "model.tensorrt.onnx"
    onnx.save(residual_network(), path)
    yield path


@pytest.fixture(scope="module")
def built(source: Path) -> BuiltEngine:
    options = BuildOptions(flavour="tensorrt-rtx", batch=(1, 4, 16), workspace_mib=512, optimization_level=2)
    return build_engine(source, options)


def test_every_product_of_a_quantized_network_becomes_an_int8_layer(built: BuiltEngine) -> None:
    audit = built.record.audit
    assert audit.source == "build log"
    assert (audit.integer, audit.total, audit.missed) == (3, 3, ())
    assert [layer.op for layer in audit.layers] == ["Conv", "Conv", "Gemm"]
    assert all(layer.engine_layer.startswith(layer.node) for layer in audit.layers)


def test_the_record_tells_origin_library_shapes_and_target(built: BuiltEngine, source: Path) -> None:
    record = built.record
    assert record.source.sha256 == file_sha256(source)
    assert record.file.sha256 == sha256(built.content)
    assert (record.flavour, record.file.name) == ("tensorrt-rtx", "model.rtx.plan")
    assert record.version.split(".")[0] == "1"
    assert record.compute_capabilities == ("8.0", "8.6", "8.9", "12.0", "12.1")
    assert record.inputs == (TensorSpec("image", "float32", ("N", 3, 16, 16)),)
    assert [output.shape for output in record.outputs] == [("N", 10)]
    shapes = ((batch, 3, 16, 16) for batch in (1, 4, 16))
    assert record.profiles == (Profile("image", *shapes),)
    assert (record.workspace_mib, record.optimization_level) == (512, 2)
    assert record.build_seconds > 0


def test_engine_and_record_are_written_beside_the_graph(built: BuiltEngine, source: Path) -> None:
    path = write_engine(source.parent, built)
    assert path.read_bytes() == built.content
    assert EngineRecord.load(source.parent, path.name) == built.record
    assert {file.name for file in source.parent.iterdir()} == {
        "model.tensorrt.onnx",
        "model.rtx.plan",
        "model.rtx.plan.json",
    }


def test_layers_that_run_in_float_are_named_whether_or_not_they_should(tmp_path: Path) -> None:
    net = Net()
    image = net.input([2, 16, 8, 8])
    plain = net.node("Conv", image, net.floats(16, 16, 3, 3), pads=[1] * 4)
    missed = net.conv(net.pair(plain, scale=[0.1]))
    audit = build(net.model(missed), tmp_path).record.audit
    found = {layer.node: layer for layer in audit.layers}
    assert (found[plain].expected, found[plain].integer) == (False, False)
    assert (found[missed].expected, found[missed].integer) == (True, False)
    assert "reads Float data" in found[missed].reason
    assert audit.missed == (found[missed],)


def test_products_of_two_quantized_tensors_are_audited_without_names(tmp_path: Path) -> None:
    net = Net()
    tokens = net.pair(net.node("MatMul", net.pair(net.input([2, 16, 32])), net.weight(32, 64, axis=1)))
    scores = net.node("MatMul", tokens, net.node("Transpose", tokens, perm=[0, 2, 1]))
    weights = net.node("Softmax", scores)
    model = net.model(net.node("MatMul", weights, tokens))
    for node in model.graph.node:
        node.name = ""
    audit = build(model, tmp_path).record.audit
    assert [(layer.expected, layer.integer) for layer in audit.layers] == [
        (True, True),
        (True, True),
        (False, False),
    ]


def test_weights_in_another_file_are_found(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(single_conv(), path, save_as_external_data=True, location="weights.bin", size_threshold=16)
    assert (tmp_path / "weights.bin").exists()
    assert build_engine(path, OPTIONS).record.audit.integer == 1


def test_a_static_graph_needs_no_profile(tmp_path: Path) -> None:
    record = build(single_conv(), tmp_path).record
    assert record.profiles == ()
    assert record.inputs[0].shape == (2, 16, 8, 8)


def test_an_input_that_is_dynamic_beyond_its_batch_is_refused_by_name(tmp_path: Path) -> None:
    net = Net()
    message = refusal(net.model(net.conv(net.pair(net.input(["N", 16, "height", 8])))), tmp_path)
    assert "input image has the shape (?, 16, ?, 8)" in message
    assert "export the graph with fixed sizes" in message


@pytest.mark.parametrize("scale", [0.0, -0.1])
def test_a_scale_that_is_not_positive_is_refused_in_the_parsers_words(scale: float, tmp_path: Path) -> None:
    message = refusal(single_conv(scale=scale), tmp_path)
    assert "does not accept the graph" in message
    assert "node 0, quantizelinear0 (QuantizeLinear): " in message
    assert "Scale coefficients must all be positive" in message
    assert "look at the layer before it" in message
    assert "saq-qat check" in message


def test_a_crash_of_the_library_is_a_message(tmp_path: Path) -> None:
    net = Net()
    image = net.input([2, 16, 8, 8])
    scale = net.input([], "scale")
    message = refusal(net.model(net.conv(net.pair(image, scale))), tmp_path)
    assert "the library crashed (Segmentation fault" in message
    assert "Its last messages:\n    VERBOSE: " in message


@pytest.mark.parametrize(
    "content",
    [b"this is not ONNX" * 50, single_conv().SerializeToString()[:-700]],
    ids=["garbage", "truncated"],
)
def test_a_broken_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(EngineError, match=rf"{path}: TensorRT-RTX [\d.]+ does not accept the graph"):
        build_engine(path, OPTIONS)


def test_too_little_scratch_memory_is_told_with_the_setting_that_gives_more(tmp_path: Path) -> None:
    net = Net()
    model = net.model(net.conv(net.pair(net.input([64, 16, 64, 64])), filters=64))
    message = refusal(model, tmp_path, BuildOptions(flavour="tensorrt-rtx", workspace_mib=1))
    assert "could not build the engine" in message
    assert "Raise deploy.tensorrt.workspace_mib" in message


def test_a_build_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    options = BuildOptions(flavour="tensorrt-rtx", timeout_seconds=0.01)
    assert "took more than 0.01 s and was ended" in refusal(single_conv(), tmp_path, options)


def test_a_timing_cache_is_left_alone_by_a_library_that_times_nothing(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.write_bytes(b"old")
    built = build(single_conv(), tmp_path, BuildOptions(flavour="tensorrt-rtx", timing_cache=cache))
    assert any("timing cache is left alone" in line for line in built.log)
    assert cache.read_bytes() == b"old"


def test_what_only_enterprise_can_do_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    for options in (
        BuildOptions(flavour="tensorrt-rtx", version_compatible=True),
        BuildOptions(flavour="tensorrt-rtx", hardware_compatibility="ampere_plus"),
    ):
        with pytest.raises(RecipeError, match="build with the flavour tensorrt"):
            build(single_conv(), tmp_path, options)


def test_a_file_that_is_missing_or_oddly_named_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="there is no such file"):
        build_engine(tmp_path / "none.onnx", OPTIONS)
    odd = tmp_path / "my model.onnx"
    odd.write_bytes(b"")
    with pytest.raises(ArtifactError, match="Rename it"):
        build_engine(odd, OPTIONS)
