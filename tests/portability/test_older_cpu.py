"""On this processor with newer instructions hidden: kernels saturate as emulated, no shipped code changes."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from saq_qat.recipe.load import parse_recipe
from saq_qat.train.run import run_training
from saq_qat_export.bundle.golden import golden_codes
from saq_qat_export.proof.probe import with_code_outputs
from saq_qat_export.proof.prove import ProofSize
from saq_qat_export.reference.saturating_pairs import saturation
from saq_qat_export.run import export_run
from tests.export.cases import TINY, Case, lowered
from tests.export.networks import SIDE, small, smooth_images
from tests.export.openvino_networks import openvino_graph, small_for_openvino
from tests.gate.networks import RECIPES
from tests.portability.older_cpu import OLDER_CPUS, build, environment, unavailable

Run = Callable[..., str]

PRODUCT = """
import sys, numpy, onnxruntime
folder = sys.argv[1]
arrays = dict(numpy.load(folder + "/inputs.npz"))
session = onnxruntime.InferenceSession(folder + "/product.onnx", providers=["CPUExecutionProvider"])
numpy.save(folder + "/product.npy", session.run(None, arrays)[0])
"""
SELF_TEST = """
import sys
from saq_qat_runtime.session import Session
Session.load(sys.argv[1], backend="onnxruntime").self_test()
print("passed")
"""
OPENVINO_CODES = """
import sys, numpy
from saq_qat_runtime.openvino import OpenVinoBackend
folder = sys.argv[1]
golden = dict(numpy.load(folder + "/golden.npz"))
backend = OpenVinoBackend(open(folder + "/watched.onnx", "rb").read(), any_operators=True)
found = backend.run({"image": golden.pop("inputs")})
golden.pop("logits")
print(sum(int((found[name] != codes).sum()) for name, codes in golden.items()))
"""
PLAIN_CODES = Path(__file__).with_name("plain_codes.py")


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if reason := unavailable(None):
        pytest.skip(reason)  # what this machine lacks, in words
    found = build(tmp_path_factory.mktemp("older-cpu"))
    if reason := unavailable(found):
        pytest.skip(reason)  # as above
    return found


@pytest.fixture
def run_on(library: Path) -> Run:
    """Run a Python script on a CPU of ``OLDER_CPUS``, and give back what it prints."""

    def run(cpu: str, *arguments: str) -> str:
        command = [sys.executable, *arguments]
        variables = {**environment(library, cpu), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def codes_on(run_on: Run, cpu: str, folder: Path) -> dict[str, Any]:
    """What a plain session there makes of a folder's golden images."""
    found: dict[str, Any] = json.loads(run_on(cpu, str(PLAIN_CODES), str(folder)).splitlines()[-1])
    return found


@pytest.mark.parametrize("cpu", OLDER_CPUS)
def test_torch_and_proc_cpuinfo_show_the_older_cpu(run_on: Run, cpu: str) -> None:
    script = (
        "import torch; print(torch.backends.cpu.get_cpu_capability()); print(open('/proc/cpuinfo').read())"
    )
    capability, flags = run_on(cpu, "-c", script).split("\n", 1)
    assert {"avx512": "AVX512", "avx2": "AVX2", "sse4": "DEFAULT"}[cpu] == capability
    words = set(flags.split())
    assert not words & {"avx512_vnni", "avx_vnni", "amx_int8"}
    assert ("avx512f" in words) is (cpu == "avx512")
    assert ("avx2" in words) is (cpu != "sse4")


@pytest.mark.parametrize("cpu", ["avx512", "avx2"])
def test_kernels_without_vnni_lose_exactly_what_is_emulated(run_on: Run, tmp_path: Path, cpu: str) -> None:
    random = np.random.default_rng(0)
    first = random.integers(0, 256, (9, 64)).astype(np.uint8)
    second = random.integers(-128, 128, (64, 17)).astype(np.int8)
    node = helper.make_node("MatMulInteger", ["first", "second"], ["product"])
    inputs = [
        helper.make_tensor_value_info("first", TensorProto.UINT8, first.shape),
        helper.make_tensor_value_info("second", TensorProto.INT8, second.shape),
    ]
    output = helper.make_tensor_value_info("product", TensorProto.INT32, [9, 17])
    graph = helper.make_graph([node], "product", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "product.onnx")
    np.savez(tmp_path / "inputs.npz", first=first, second=second)
    run_on(cpu, "-c", PRODUCT, str(tmp_path))
    lost = saturation(first.astype(np.int32), second)
    assert np.count_nonzero(lost) > 100
    exact = first.astype(np.int32) @ second.astype(np.int32)
    np.testing.assert_array_equal(np.load(tmp_path / "product.npy"), exact + lost)


@pytest.mark.parametrize("cpu", OLDER_CPUS)
@pytest.mark.parametrize("bits", [4, 8])
def test_no_code_differs_in_a_plain_session(run_on: Run, tmp_path: Path, cpu: str, bits: int) -> None:
    transformer = TINY[0]
    for name, side in (("small", SIDE), (transformer.name, transformer.side)):
        found = small(bits, bits) if name == "small" else lowered(Case(transformer, bits, "saq", "none"))
        images = smooth_images(2, side, seed=1).numpy()
        codes, logits = golden_codes(found.view, found.graph, images)
        folder = tmp_path / name
        folder.mkdir()
        (folder / "model.onnx").write_bytes(found.graph.content)
        np.savez(folder / "golden.npz", inputs=images, logits=logits, **codes)  # type: ignore[arg-type]  # its stubs take no mapping of arrays
        seen = codes_on(run_on, cpu, folder)
        ties = 1e-5 if cpu == "sse4" else 0  # without fused multiply-add, softmax rounds otherwise
        assert seen["differ"] <= ties * seen["compared"] and seen["compared"] > 1000, seen


@pytest.mark.parametrize("cpu", OLDER_CPUS)
@pytest.mark.parametrize("bits", [4, 8])
def test_openvino_gives_the_codes_of_the_integer_reference_on_older_cpus(
    run_on: Run, tmp_path: Path, cpu: str, bits: int
) -> None:
    found = small_for_openvino(bits)
    images = smooth_images(4, SIDE, seed=1).numpy()
    codes, logits = golden_codes(found.view, found.graph, images)
    (tmp_path / "watched.onnx").write_bytes(with_code_outputs(openvino_graph(found, SIDE)))
    np.savez(tmp_path / "golden.npz", inputs=images, logits=logits, **codes)  # type: ignore[arg-type]  # its stubs take no mapping of arrays
    assert run_on(cpu, "-c", OPENVINO_CODES, str(tmp_path)) == "0\n"


def test_a_bundle_for_vnni_is_exact_in_our_sessions_alone(run_on: Run, tmp_path: Path) -> None:
    overrides = ["deploy.onnxruntime.cpu=vnni", "deploy.targets=[onnxruntime]"]
    run_training(parse_recipe(RECIPES["cnn"], "vnni", overrides), tmp_path / "run")
    size = ProofSize(code_images=4, top1_images=4)
    exported = export_run(tmp_path / "run", tmp_path / "bundle", size=size)
    assert exported.manifest.cpu.over_pair_bound
    assert "x86 CPUs without VNNI give other codes" in exported.manifest.cpu.elsewhere
    assert codes_on(run_on, "avx2", tmp_path / "bundle")["differ"] > 0
    for cpu in OLDER_CPUS:
        assert run_on(cpu, "-c", SELF_TEST, str(tmp_path / "bundle")) == "passed\n"
