"""A bundle is whole by itself: wherever it lies, and however much an engine may rewrite its graph."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from saq_qat_export.graph.onnx_graph import INPUT
from saq_qat_export.proof.probe import Probe
from saq_qat_runtime.session import Session
from tests.export.networks import SIDE, small, smooth_images
from tests.runtime.networks import images

LEVELS = onnxruntime.GraphOptimizationLevel


def at_level(content: bytes, level: Any) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    logits: NDArray[np.float32] = session.run(None, {INPUT: smooth_images(8, SIDE, seed=1).numpy()})[0]
    return logits


@pytest.mark.parametrize(
    ("level", "rounding"),
    [
        # Where nothing is fused, layers are sums of floats, which float32 rounds once or twice.
        (LEVELS.ORT_DISABLE_ALL, 2e-7),
        (LEVELS.ORT_ENABLE_BASIC, 2e-7),
        (LEVELS.ORT_ENABLE_EXTENDED, 0.0),
        (LEVELS.ORT_ENABLE_ALL, 0.0),
    ],
)
def test_every_level_of_optimization_gives_the_proved_logits(level: Any, rounding: float) -> None:
    _, proved = Probe(small().graph).run(smooth_images(8, SIDE, seed=1).numpy())
    found = at_level(small().graph.content, level)
    np.testing.assert_allclose(found, proved, rtol=0, atol=rounding)


@pytest.mark.parametrize("moved", [shutil.move, shutil.copytree])
def test_a_bundle_that_lies_elsewhere_gives_the_same_logits(
    bundle: Path, tmp_path: Path, moved: Callable[[str, str], object]
) -> None:
    with Session.load(bundle, threads=1) as session:
        expected = session(images(4))
    there = tmp_path / "a folder with spaces" / "größer, 模型" / "deployed"
    there.parent.mkdir(parents=True)
    moved(str(bundle), str(there))
    with Session.load(there, threads=1) as session:
        session.self_test()
        np.testing.assert_array_equal(session(images(4)), expected)


def test_a_model_of_two_names_on_a_disk_is_read_by_onnx_and_by_its_engine(
    bundle: Path, tmp_path: Path
) -> None:
    other = tmp_path / "linked.onnx"
    os.link(bundle / "model.onnx", other)
    onnx.checker.check_model(str(other), full_check=True)
    onnxruntime.InferenceSession(str(other), providers=["CPUExecutionProvider"])
    with Session.load(bundle, threads=1) as session:
        session.self_test()
