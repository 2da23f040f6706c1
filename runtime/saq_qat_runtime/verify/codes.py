"""Codes of the golden images, as ONNX Runtime computes them on this machine."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saq_qat_runtime.bundle.files import read_verified
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.bundle.onnx_file import with_outputs
from saq_qat_runtime.onnxruntime import OnnxRuntimeBackend
from saq_qat_runtime.promises import read_golden, read_golden_codes
from saq_qat_runtime.verify.record import CodeComparison

__all__ = ["compare_codes"]


def compare_codes(folder: Path, manifest: Manifest, threads: int | None = None) -> CodeComparison:
    """Every code of every quantized tensor beside golden.npz, in the model for ONNX Runtime.

    The model is loaded with its code tensors as further outputs, and with the kernels a session asks for.

    Raises:
        ModelError: the bundle has no such model, or is damaged. BackendUnavailable: onnxruntime is missing.
        RuntimeFault: it failed.
    """
    model = manifest.models["onnxruntime"]
    golden = read_golden_codes(folder, manifest)
    inputs, _ = read_golden(folder, manifest)
    content = with_outputs(read_verified(folder, model.name, model.sha256, model.bytes), sorted(golden))
    exact_pairs = bool(manifest.cpu.over_pair_bound)
    engine = OnnxRuntimeBackend(content, threads=threads, exact_pairs=exact_pairs)
    found = engine.run({manifest.inputs[0].name: inputs})
    engine.close()
    differing = {name: _differences(codes, found[name]) for name, codes in golden.items()}
    return CodeComparison(
        tensors=len(golden),
        compared=sum(codes.size for codes in golden.values()),
        mismatches=sum(differing.values()),
        differing={name: count for name, count in differing.items() if count},
    )


def _differences(golden: NDArray[Any], found: NDArray[Any]) -> int:
    if found.shape != golden.shape or found.dtype != golden.dtype:
        return golden.size
    return int(np.count_nonzero(found != golden))
