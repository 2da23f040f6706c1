"""Every name and argument of TensorRT that our code uses exists in each version it serves (rule TRT203)."""

from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tests.contract.tensorrt_api.api import load_api
from tests.contract.tensorrt_api.bindings import (
    GOLDEN,
    RELEASES,
    Release,
    Unavailable,
    dump_module,
    dump_release,
    text_of,
)
from tests.contract.tensorrt_api.program import Module, read_modules, relevant
from tests.contract.tensorrt_api.usage import Usage, usage_of

ROOT = Path(__file__).parents[2]
BUILDERS = ("10.16", "11.4", "rtx-1.7")
LEAN = "lean-11.4"
_RTX_TARGETS = "engines of TensorRT-RTX alone are built for several kinds of GPU; asked for by hasattr"
ONLY_IN = {
    "IBuilderConfig.num_compute_capabilities": ("rtx-1.7", _RTX_TARGETS),
    "IBuilderConfig.set_compute_capability": ("rtx-1.7", _RTX_TARGETS),
}
"""Names that one version has alone, and why our code may use them nevertheless."""

EXPECTED_USES = {
    "Builder.build_serialized_network",
    "IBuilderConfig.profiling_verbosity",
    "ICudaEngine.get_tensor_mode",
    "IExecutionContext.execute_async_v3",
    "IExecutionContext.set_tensor_address",
    "ILogger.__init__",
    "IOptimizationProfile.set_shape",
    "ITimingCache.serialize",
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
    "ParserError.node_name",
    "Runtime.deserialize_cuda_engine",
}
"""Some of what the check must see, reached over several functions and classes."""


@cache
def our_modules() -> dict[str, Module]:
    folders = ("export/saq_qat_export", "runtime/saq_qat_runtime", "saq_qat")
    return relevant(read_modules(ROOT / folder for folder in folders))


@cache
def usage(version: str) -> Usage:
    return usage_of(our_modules(), load_api(GOLDEN / f"{version}.json"))


@pytest.mark.parametrize("version", BUILDERS)
def test_names_arguments_and_members_of_enums_exist(version: str) -> None:
    problems = [p for p in usage(version).problems if ONLY_IN.get(p.name, (version, ""))[0] == version]
    assert problems == []


def test_the_lean_runtime_has_what_our_runtime_uses() -> None:
    problems = [p for p in usage(LEAN).problems if p.module.startswith("saq_qat_runtime")]
    assert problems == []


@pytest.mark.parametrize("name", ONLY_IN)
def test_a_name_of_one_version_is_used_and_is_there_alone(name: str) -> None:
    has = [version for version in BUILDERS if not any(p.name == name for p in usage(version).problems)]
    assert has == [ONLY_IN[name][0]]
    assert name in {use.name for use in usage(has[0]).uses}


def test_the_check_sees_uses_through_functions_and_classes() -> None:
    assert {use.name for use in usage("11.4").uses} >= EXPECTED_USES


@pytest.mark.slow
def test_any_use_that_is_misspelt_is_found() -> None:
    missed = [
        use for use in usage("rtx-1.7").uses if not _found_if_misspelt(use.module, use.line, use.column)
    ]
    assert missed == []


def _found_if_misspelt(name: str, line: int, column: int) -> bool:
    lines = our_modules()[name].source.encode().splitlines()
    lines[line - 1] = lines[line - 1][:column] + b"_x" + lines[line - 1][column:]
    changed = {**our_modules(), name: Module(name, b"\n".join(lines).decode())}
    return any(p.name.endswith("_x") for p in usage_of(changed, load_api(GOLDEN / "rtx-1.7.json")).problems)


def test_the_names_of_tensorrt_rtx_are_those_of_the_library() -> None:
    pytest.importorskip("tensorrt_rtx", reason="needs the extra rtx")
    if not metadata.version("tensorrt_rtx").startswith("1.7."):
        pytest.skip("the golden file is that of TensorRT-RTX 1.7")
    assert text_of(dump_module("tensorrt_rtx")) == (GOLDEN / "rtx-1.7.json").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.golden)
def test_the_names_of_enterprise_tensorrt_are_those_of_its_bindings(release: Release, tmp_path: Path) -> None:
    try:
        names: dict[str, Any] = dump_release(release, tmp_path)
    except Unavailable as reason:
        pytest.skip(str(reason))
    assert text_of(names) == (GOLDEN / release.golden).read_text(encoding="utf-8")
