"""What is computed here beside what export recorded: codes, where an engine shows them, and logits."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.codes import CodeComparison, compare_codes
from saq_qat_runtime.errors import RuntimeFault
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend
from saq_qat_runtime.promises import read_golden

__all__ = ["SelfTest", "TestedEngine", "run_self_test"]


@dataclass(frozen=True)
class SelfTest:
    """What agreed with the bundle's records.

    compared: golden logits, and largest_difference: of them, absolute. codes: None where the engine keeps its
    codes to itself, so that logits alone were compared.
    """

    compared: int
    largest_difference: float
    codes: CodeComparison | None = None


@dataclass(frozen=True)
class TestedEngine:
    """target: which of the manifest's models runs. label: engine and version. threads: of one call.

    run: float32 images (N, channels, height, width) to logits (N, labels).
    """

    target: str
    label: str
    threads: int | None
    run: Callable[[NDArray[np.float32]], NDArray[np.float32]]


def run_self_test(folder: Path, manifest: Manifest, engine: TestedEngine) -> SelfTest:
    """Every code of every quantized tensor, on ONNX Runtime; then the logits of the golden images.

    Raises:
        RuntimeFault: they differ by more than allowed. ModelError: a file of the bundle is damaged.
    """
    codes = None
    if engine.target == OnnxRuntimeBackend.name:
        codes = compare_codes(folder, manifest, engine.threads)
        if codes.failure:
            raise RuntimeFault(f"Self-test on {engine.label}: {codes.failure}")
    tolerance = manifest.golden.logits_tolerance[engine.target]
    inputs, expected = read_golden(folder, manifest)
    difference = float(np.abs(engine.run(inputs).astype(np.float64) - expected).max())
    if not difference <= tolerance:
        rule = f"golden logits may differ by {tolerance}, but differ by {difference}"
        raise RuntimeFault(f"Self-test: {rule} on {engine.label}. Use the engine version of the manifest.")
    return SelfTest(expected.size, difference, codes)
