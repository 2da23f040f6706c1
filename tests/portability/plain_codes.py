"""Codes of every quantized tensor by a plain ONNX Runtime session, against golden.npz.

usage: plain_codes.py FOLDER        a bundle, or any folder with model.onnx and golden.npz

Prints one line of JSON. Needs numpy, onnx and onnxruntime alone, so that it runs on any (emulated) machine.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

_NO_CODES = frozenset({"inputs", "logits"})
_ELEMENTS = {"uint8": onnx.TensorProto.UINT8, "int8": onnx.TensorProto.INT8}


def main(folder: Path) -> None:
    """Compare, and print what differs."""
    with np.load(folder / "golden.npz") as archive:
        golden = {name: archive[name] for name in archive.files}
    names = sorted(golden.keys() - _NO_CODES)
    logits, *codes = _run(folder / "model.onnx", golden, names)
    differ = {
        name: int(np.count_nonzero(own != golden[name])) for name, own in zip(names, codes, strict=True)
    }
    print(
        json.dumps(
            {
                "tensors": len(names),
                "compared": sum(array.size for array in codes),
                "differ": sum(differ.values()),
                "first": next((name for name in differ if differ[name]), ""),
                "largest_logit_difference": float(np.abs(logits - golden["logits"]).max()),
            }
        )
    )


def _run(path: Path, golden: dict[str, npt.NDArray[Any]], names: list[str]) -> list[npt.NDArray[Any]]:
    """Logits, then codes in the order of ``names``."""
    model = onnx.load(path)
    for name in names:
        element = _ELEMENTS[str(golden[name].dtype)]
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, element, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    image, logits = session.get_inputs()[0].name, session.get_outputs()[0].name
    found: list[npt.NDArray[Any]] = session.run([logits, *names], {image: golden["inputs"]})
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
