"""Every number of a written ONNX file beside the checkpoint it shall come from, by a path that shares no code
with lowering and export.

Codes, scales, zero points, bounds and offsets are equal bit for bit (in a float16 file: rounded to float16
once). A bias is at most half a unit from the float64 that BatchNorm, bias and offset give. One documented
exception: a channel whose bias is beyond 2^30 units is stored as that bias alone, and counted. A number of
the file that belongs to no record of the checkpoint is a difference, and so is a record that the file lacks.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from saq_qat_export.proof.numbers.file import GraphFile
from saq_qat_export.proof.numbers.floats import FloatComparison
from saq_qat_export.proof.numbers.layers import LayerComparison
from saq_qat_export.proof.numbers.quantizers import QuantizerComparison
from saq_qat_export.proof.numbers.tally import Difference, Tally
from saq_qat_export.proof.numbers.trained import ExpectedQuantizer, Trained, read_trained

__all__ = ["Numbers", "compare_file"]

_STATISTICS = 1e-4
"""Share by which a float32 mean or deviation of a weight may differ from the float64 one: long sums."""


@dataclass(frozen=True)
class Numbers:
    """The outcome for one file.

    Attributes:
        compared: numbers.
        differences: where they differ; empty if the file states what was trained.
        constant_channels: channels that are their bias alone.
    """

    compared: int
    differences: tuple[Difference, ...]
    constant_channels: int

    @property
    def differing(self) -> int:
        return sum(difference.count for difference in self.differences)


def compare_file(content: bytes, checkpoint: Path | Trained) -> Numbers:
    """Compare the bytes of an ONNX file with a checkpoint's folder.

    Raises:
        ArtifactError: the checkpoint has no records or cannot be read, or the content is no ONNX file.
    """
    trained = checkpoint if isinstance(checkpoint, Trained) else read_trained(checkpoint)
    file, tally = GraphFile(content), Tally()
    _records(trained, tally)
    quantizers = QuantizerComparison(file, trained, tally)
    quantizers.run()
    layers = LayerComparison(file, trained, tally, quantizers.read_by)
    layers.run()
    floats = FloatComparison(file, trained, tally)
    for name in trained.quantizers:
        if name not in quantizers.seen:
            _absent(file, name, trained.quantizers[name], tally, floats)
    for name in trained.layers:
        if name not in layers.seen:
            tally.differ(f"layer {name}", "", "in the records", "none")
    floats.run()
    return Numbers(tally.compared, tuple(tally.differences), tally.constant_channels)


def _absent(
    file: GraphFile, name: str, expected: ExpectedQuantizer, tally: Tally, floats: FloatComparison
) -> None:
    """Products of activations may stay float on TensorRT, whose files have no codes of more than 8 bits."""
    is_for_onnxruntime = any(array.dtype == np.uint8 for array in file.constants.values())
    if expected.record.role == "operand" and not is_for_onnxruntime:
        floats.allow_bound_of(name)
    else:
        tally.differ(f"quantizer {name}", "", "in the records", "none")


def _records(trained: Trained, tally: Tally) -> None:
    """What the records say of themselves: their numbers are those of the checkpoint's tensors."""
    for record in trained.records.quantizers:
        expected = trained.quantizers[record.name]
        _recorded(tally, f"scale of {record.name}", expected.scale, record.scale)
        offset = None if expected.offset is None else np.float32(expected.offset)
        _recorded(tally, f"offset of {record.name}", offset, record.offset)
    for layer in trained.records.layers:
        _recorded(tally, f"weight scale of {layer.name}", trained.scale(layer.weight), layer.weight.scale)
        if layer.mean is not None and layer.deviation is not None:
            _statistics(tally, layer.name, trained.tensor(layer.weight_name), layer.mean, layer.deviation)


def _recorded(tally: Tally, what: str, own: Any, stated: float | None) -> None:
    if own is None or stated is None:
        if own is not stated:
            tally.differ(what, "records.json", own, stated)
        return
    tally.equal(what, "records.json", np.float32(own), np.float32(stated))


def _statistics(tally: Tally, name: str, weight: Any, mean: float, deviation: float) -> None:
    exact = weight.astype(np.float64)
    own = exact.std(ddof=1) if exact.size > 1 else 1.0
    own = 1.0 if own < 1e-5 else own
    off = max(abs(mean - exact.mean()), abs(deviation - own))
    if not off <= _STATISTICS * own:
        expected = f"mean {exact.mean():.9g} and deviation {own:.9g}"
        tally.differ(f"statistics of {name}", "records.json", expected, f"{mean:.9g} and {deviation:.9g}")
    tally.compared += 2
