"""Settings of a build on the real TensorRT-RTX; steps that Enterprise takes, on objects that only note.

That the names exist in Enterprise is another test's business, that they work a GPU's.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from saq_qat_runtime.bundle.records import TensorSpec
from saq_qat_runtime.errors import InputError
from saq_qat_runtime.tensorrt.build.builder import build, configure
from saq_qat_runtime.tensorrt.build.exchange import BuildFailure, Request
from saq_qat_runtime.tensorrt.build.journal import Journal, create_logger
from saq_qat_runtime.tensorrt.build.options import BuildOptions
from saq_qat_runtime.tensorrt.build.profiles import tensor_specs
from saq_qat_runtime.tensorrt.build.timing_cache import TimingCache
from saq_qat_runtime.tensorrt.engine_record import Profile
from tests.runtime.tensorrt.build.requests import REQUEST

INSPECTION = '{"Layers": []}'


class Logger:
    """Base of loggers, as the library has one."""


def tensor(library: MagicMock, name: str, *shape: int) -> SimpleNamespace:
    return SimpleNamespace(name=name, dtype=library.DataType.FLOAT, shape=shape, is_shape_tensor=False)


@pytest.fixture
def library() -> Iterator[MagicMock]:
    """A library that accepts a graph with one input and one output."""
    library = MagicMock(ILogger=Logger, __version__="11.4.0")
    network = library.Builder.return_value.create_network.return_value
    network.num_inputs = network.num_outputs = 1
    network.get_input.return_value = tensor(library, "image", -1, 3, 8, 8)
    network.get_output.return_value = tensor(library, "logits", -1, 10)
    library.Builder.return_value.build_serialized_network.return_value = b"plan"
    library.NetworkDefinitionCreationFlag.STRONGLY_TYPED = 1
    engine = library.Runtime.return_value.deserialize_cuda_engine.return_value
    engine.create_engine_inspector.return_value.get_engine_information.return_value = INSPECTION
    yield library


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "journal.txt") as journal:
        yield journal


def configured(library: MagicMock, request: Request = REQUEST) -> Any:
    config = MagicMock()
    configure(library, config, request)
    return config


def test_an_engine_is_built_strongly_typed_and_listed_by_its_inspector(
    library: MagicMock, journal: Journal, tmp_path: Path
) -> None:
    answer = build(library, REQUEST, journal, tmp_path / "engine.plan")
    library.Builder.return_value.create_network.assert_called_once_with(2)
    library.OnnxParser.return_value.parse_from_file.assert_called_once_with("graph.onnx")
    profile = library.Builder.return_value.create_optimization_profile.return_value
    profile.set_shape.assert_called_once_with("image", (1, 3, 8, 8), (8, 3, 8, 8), (32, 3, 8, 8))
    assert (tmp_path / "engine.plan").read_bytes() == b"plan"
    assert (answer.layer_source, answer.layers) == ("engine inspector", INSPECTION)
    assert answer.outputs == (TensorSpec("logits", "float32", ("N", 10)),)
    assert answer.compute_capabilities == ()


def read_back(precision: Any, journal: Path) -> dict[str, Any]:
    """What the real builder says of its settings."""
    library: Any = import_module("tensorrt_rtx")
    with Journal(journal) as notes:
        builder = library.Builder(create_logger(library, notes))
        config = builder.create_builder_config()
        configure(library, config, replace(REQUEST, flavour="tensorrt-rtx", precision=precision))
        return {
            "verbosity": config.profiling_verbosity.name,
            "level": config.builder_optimization_level,
            "workspace": config.get_memory_pool_limit(library.MemoryPoolType.WORKSPACE),
            "flags": {
                name for name, flag in library.BuilderFlag.__members__.items() if config.get_flag(flag)
            },
        }


def test_settings_reach_the_real_library(tmp_path: Path) -> None:
    """float32 means float32: TF32, which the library starts with, rounds factors to 10 bits."""
    pytest.importorskip("tensorrt_rtx", reason="needs the extra rtx")
    with ProcessPoolExecutor(1, get_context("spawn")) as child:  # whose end is no matter if it crashes
        exact, half = (child.submit(read_back, p, tmp_path / p).result(60) for p in ("float32", "float16"))
    expected = {"verbosity": "DETAILED", "level": 5, "workspace": 64 << 20}
    assert exact == {**expected, "flags": set()}
    assert half == {**expected, "flags": {"TF32"}}


@pytest.mark.parametrize(
    ("level", "member"),
    [("ampere_plus", "AMPERE_PLUS"), ("same_compute_capability", "SAME_COMPUTE_CAPABILITY")],
)
def test_compatibility_is_set_where_asked_for(
    level: Any, member: str, library: MagicMock, journal: Journal, tmp_path: Path
) -> None:
    request = replace(REQUEST, hardware_compatibility=level, version_compatible=True)
    config = configured(library, request)
    assert config.hardware_compatibility_level == getattr(library.HardwareCompatibilityLevel, member)
    config.set_flag.assert_called_once_with(library.BuilderFlag.VERSION_COMPATIBLE)
    build(library, request, journal, tmp_path / "engine.plan")
    assert library.Runtime.return_value.engine_host_code_allowed is True


def test_a_builder_that_cannot_be_created_is_a_failure_with_the_librarys_errors(
    library: MagicMock, journal: Journal, tmp_path: Path
) -> None:
    journal.note("ERROR", "CUDA initialization failure with error: 35")
    library.Builder.side_effect = TypeError("factory function returned nullptr")
    with pytest.raises(BuildFailure) as raised:
        build(library, REQUEST, journal, tmp_path / "engine.plan")
    assert raised.value.messages[0] == "CUDA initialization failure with error: 35"
    assert "returned nullptr" in raised.value.messages[1]


def test_no_engine_is_a_failure_with_the_librarys_errors(
    library: MagicMock, journal: Journal, tmp_path: Path
) -> None:
    journal.note("ERROR", "no implementation")
    library.Builder.return_value.build_serialized_network.return_value = None
    with pytest.raises(BuildFailure) as raised:
        build(library, REQUEST, journal, tmp_path / "engine.plan")
    assert (raised.value.stage, raised.value.messages) == ("build", ("no implementation",))


def test_an_engine_that_does_not_load_again_is_a_failure(
    library: MagicMock, journal: Journal, tmp_path: Path
) -> None:
    library.Runtime.return_value.deserialize_cuda_engine.return_value = None
    with pytest.raises(BuildFailure) as raised:
        build(library, REQUEST, journal, tmp_path / "engine.plan")
    assert raised.value.stage == "inspect"


def test_an_input_that_holds_a_shape_is_refused(library: MagicMock, journal: Journal, tmp_path: Path) -> None:
    network = library.Builder.return_value.create_network.return_value
    network.get_input.return_value.is_shape_tensor = True
    with pytest.raises(BuildFailure, match="an input that holds a shape is not supported"):
        build(library, REQUEST, journal, tmp_path / "engine.plan")


def test_kernel_times_are_read_before_and_written_after_the_build(
    library: MagicMock, journal: Journal, tmp_path: Path
) -> None:
    path = tmp_path / "times"
    path.write_bytes(b"old times")
    config = library.Builder.return_value.create_builder_config.return_value
    config.get_timing_cache.return_value.serialize.return_value = b"new times"
    request = replace(REQUEST, timing_cache=str(path))
    answer = build(library, request, journal, tmp_path / "engine.plan")
    config.create_timing_cache.assert_called_once_with(b"old times")
    assert config.set_timing_cache.call_args.kwargs == {"ignore_mismatch": False}
    assert path.read_bytes() == b"new times"
    assert answer.notes == ()


def test_kernel_times_of_another_gpu_are_put_aside_and_told(tmp_path: Path) -> None:
    path = tmp_path / "times"
    path.write_bytes(b"of another GPU")
    config = MagicMock()
    config.set_timing_cache.side_effect = [False, True]
    (note,) = TimingCache(path).attach(config)
    assert "is of another GPU or version" in note
    assert [call.args for call in config.create_timing_cache.call_args_list] == [(b"of another GPU",), (b"",)]


def test_kernel_times_that_cannot_be_written_do_not_spoil_the_build(tmp_path: Path) -> None:
    config = MagicMock()
    config.get_timing_cache.return_value.serialize.return_value = b"new times"
    (note,) = TimingCache(tmp_path / "no folder" / "times").save(config)
    assert "could not be written" in note


def test_only_inputs_with_a_dynamic_batch_get_a_profile() -> None:
    image = Profile("image", (1, 3, 8, 8), (2, 3, 8, 8), (3, 3, 8, 8))
    assert Profile.over_batch("image", (-1, 3, 8, 8), (1, 2, 3)) == image
    assert Profile.over_batch("mask", (4, 4), (1, 2, 3)) is None
    assert Profile.over_batch("boxes", (-1, -1), (1, 2, 3)) is None


def test_an_output_that_is_dynamic_beyond_its_batch_is_refused() -> None:
    with pytest.raises(BuildFailure, match=r"output boxes has the shape \(\?, \?\)"):
        tensor_specs("output", [("boxes", "float32", (-1, -1))])


@pytest.mark.parametrize(
    "options",
    [
        {"batch": (0, 1, 2)},
        {"batch": (4, 2, 8)},
        {"workspace_mib": 0},
        {"optimization_level": 6},
        {"timeout_seconds": 0},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        BuildOptions(**options)


def test_enterprise_can_do_whatever_options_can_say() -> None:
    options = BuildOptions(version_compatible=True, hardware_compatibility="ampere_plus")
    options.require_supported_by("tensorrt")
