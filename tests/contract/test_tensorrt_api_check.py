"""The check of TensorRT names fails where it should: misspelt names, wrong arguments, numbers for enums."""

import pytest

from tests.contract.tensorrt_api.api import load_api
from tests.contract.tensorrt_api.bindings import GOLDEN
from tests.contract.tensorrt_api.program import Module
from tests.contract.tensorrt_api.usage import usage_of

GOOD = """
from typing import Any

def build(library: Any, path: str) -> Any:
    logger = library.Logger(min_severity=library.Logger.WARNING)
    builder = library.Builder(logger)
    network = builder.create_network(1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = library.OnnxParser(network, logger)
    if not parser.parse_from_file(path):
        raise ValueError([parser.get_error(i).desc() for i in range(parser.num_errors)])
    config = builder.create_builder_config()
    configure(library, config)
    profile = builder.create_optimization_profile()
    profile.set_shape("image", min=(1, 3), opt=(2, 3), max=(4, 3))
    config.add_optimization_profile(profile)
    return builder.build_serialized_network(network, config)

def configure(library: Any, config: Any) -> None:
    config.profiling_verbosity = library.ProfilingVerbosity.DETAILED
    config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, 1 << 20)
    cache = config.create_timing_cache(b"")
    config.set_timing_cache(cache, ignore_mismatch=False)

class Engine:
    def __init__(self, library: Any, content: bytes) -> None:
        self._library = library
        self._engine = library.Runtime(library.Logger()).deserialize_cuda_engine(content)
        self._context = self._engine.create_execution_context()

    def inputs(self) -> list[str]:
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        return [n for n in names if self._engine.get_tensor_mode(n) == self._library.TensorIOMode.INPUT]

    def enqueue(self, stream: int) -> bool:
        return bool(self._context.execute_async_v3(stream_handle=stream))
"""
VERSIONS = ("10.16", "11.4", "rtx-1.7")


def texts(source: str, version: str = "11.4") -> list[str]:
    api = load_api(GOLDEN / f"{version}.json")
    return [problem.text for problem in usage_of({"snippet": Module("snippet", source)}, api).problems]


@pytest.mark.parametrize("version", VERSIONS)
def test_right_code_passes(version: str) -> None:
    assert texts(GOOD, version) == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("library.Builder(", "library.Bulider(", "the library has no Bulider"),
        ("STRONGLY_TYPED", "STRONG_TYPED", "has no STRONG_TYPED"),
        ("parse_from_file", "parse_file", "OnnxParser has no parse_file"),
        (".desc()", ".description()", "ParserError has no description"),
        ("num_errors", "error_count", "OnnxParser has no error_count"),
        ("config.profiling_verbosity =", "config.verbosity =", "IBuilderConfig has no verbosity"),
        ("self._context.execute_async_v3", "self._context.execute_async_v2", "has no execute_async_v2"),
        ("get_tensor_mode(n)", "get_tensor_io_mode(n)", "ICudaEngine has no get_tensor_io_mode"),
        ("min_severity=", "severity=", "argument"),
        ("opt=(2, 3)", "optimum=(2, 3)", "argument"),
        ("ignore_mismatch=False", "ignore=False", "argument"),
        ("stream_handle=stream", "stream=stream", "argument"),
        ("set_timing_cache(cache, ignore_mismatch=False)", "set_timing_cache(cache)", "missing a required"),
        ("create_execution_context()", "create_execution_context(1, 2, 3)", "too many positional"),
    ],
)
def test_a_misspelt_name_or_argument_is_found(version: str, right: str, wrong: str, said: str) -> None:
    assert right in GOOD
    found = texts(GOOD.replace(right, wrong), version)
    assert found and said in found[0]


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED)", "1", "not a number"),
        ("1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED)", "flags=1 << 0", "not a number"),
        ("1 << int(library.N", "int(library.N", "only 1 << int(member)"),
        ("1 << int(library.N", "2 << int(library.N", "only 1 << int(member)"),
        ("library.ProfilingVerbosity.DETAILED", "2", "takes a member of an enum"),
        ("library.ProfilingVerbosity.DETAILED", "library.ProfilingVerbosity(2)", "name the member"),
        ("library.MemoryPoolType.WORKSPACE, 1", "0, 1", "members of an enum by name"),
        ("self._library.TensorIOMode.INPUT", "1", "compare with a member by name"),
        ("== self._library.TensorIOMode.INPUT", ".value == 1", "numbers of enums differ"),
    ],
)
def test_a_number_in_place_of_a_member_is_found(right: str, wrong: str, said: str) -> None:
    assert right in GOOD
    found = texts(GOOD.replace(right, wrong))
    assert any(said in text for text in found)


def test_what_newer_versions_dropped_is_found_there_alone() -> None:
    source = GOOD.replace("DETAILED\n", "DETAILED\n    config.set_flag(library.BuilderFlag.INT8)\n")
    assert texts(source, "10.16") == []
    assert "has no INT8" in texts(source, "11.4")[0]


def test_an_argument_that_newer_versions_require_is_missed_there_alone() -> None:
    source = GOOD.replace(
        "parser = ", "network.add_quantize(network.get_input(0), network.get_input(1))\n    parser = "
    )
    assert texts(source, "10.16") == []
    assert "missing a required argument: 'output_type'" in texts(source, "11.4")[0]


@pytest.mark.parametrize(
    "guarded",
    [
        "if hasattr(library, 'Future'):\n        library.Future()",
        "a = library.Future() if hasattr(library, 'Future') else None",
        "a = hasattr(library, 'Future') and library.Future()",
        "if not hasattr(library, 'Future'):\n        return None\n    library.Future()",
    ],
)
def test_a_name_that_is_asked_for_first_may_be_missing(guarded: str) -> None:
    body = f"def f(library):\n    {guarded}\n"
    assert texts(body) == []
    assert "has no Future" in texts(f"{body}\ndef g(library):\n    library.Future()\n")[0]
    assert "has no Futrue" in texts(body.replace("library.Future", "library.Futrue"))[0]


@pytest.mark.parametrize("package", ["tensorrt", "tensorrt_rtx", "tensorrt_lean"])
def test_the_library_is_known_however_it_comes(package: str) -> None:
    assert "has no Bulider" in texts(f"import {package} as engines\nengines.Bulider")[0]
    assert (
        "has no Bulider"
        in texts(
            f"from importlib import import_module\nt = import_module('{package}')\nt.Bulider\nlibrary = t"
        )[0]
    )


def test_an_attribute_of_something_unknown_is_a_problem_not_a_pass() -> None:
    source = "def f(library, thing):\n    return thing.anything\n"
    assert texts(source) == ["cannot tell what thing is, whose anything is used"]
    assert texts(source.replace("library, ", "")) == [], "no TensorRT, no suspicion"


def test_unpacked_arguments_are_refused_because_they_cannot_be_checked() -> None:
    assert "unpacked" in texts(GOOD.replace("(network, config)", "(*(network, config))"))[0]


def test_a_callback_gets_what_the_library_gives_it() -> None:
    source = """
def make(library):
    class Log(library.ILogger):
        def log(self, severity, msg):
            return severity.name, severity.nmae
    return Log()
"""
    assert texts(source) == ["severity.nmae: ILogger.Severity has no nmae"]
