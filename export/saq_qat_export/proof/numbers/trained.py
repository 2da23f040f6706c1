"""The integers of a checkpoint, computed from its files alone, in NumPy.

The other way to these numbers is ``saq_qat.quant`` (fake-quantization, folding, lowering); nothing of it is
used here, so that an error there cannot hide. Scales are float32, ``max(|alpha|, 1e-6) / unit``. Codes are
``clip(round(x / s), minimum, maximum)``, on the odd grid ``clip(2 round((x / s + n) / 2) - n, -n, n)``, in
float32 and half to even. Whatever is folded (BatchNorm, offsets, biases) is float64.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

from saq_qat.errors import ArtifactError
from saq_qat.quant.plan.records import (
    BatchNormRecord,
    CodesRecord,
    LayerRecord,
    NetworkRecords,
    QuantizerRecord,
    records_from_json,
)

__all__ = ["ExpectedLayer", "ExpectedQuantizer", "Trained", "read_trained"]

Array = npt.NDArray[Any]

_ALPHA_FLOOR = np.float32(1e-6)
_STEP_FLOOR = np.float32(1e-4)
_LARGEST_BIAS_CODE = 2**30
_CONSTANT_BIAS_CODE = 2**20
# Sums of float64 in another order: a few of its last bits.
_BIAS_ROUNDING = 2.0**-48


@dataclass(frozen=True)
class ExpectedQuantizer:
    """What a file must say of an activation: float32 scale, smallest and largest code, value of code 0."""

    record: QuantizerRecord
    scale: np.float32
    minimum: int
    maximum: int
    offset: np.float32 | None


@dataclass(frozen=True)
class ExpectedLayer:
    """What a file must say of a layer.

    Attributes:
        codes: int64, the weight's shape, as stored: refined, signs of the gain, zeros in dead channels.
        scale: float32 (out,), of one stored code.
        bias: float64 (out,), not rounded.
        bias_scale: float32 (out,); None where the layer reads floats.
        tolerance: float64 (out,): how many units a rounded bias may be off: half, and what the
            order of a float64 sum loses.
        constant: bool (out,): channels whose bias is beyond 2^30 units, which are stored as that bias alone.
    """

    record: LayerRecord
    codes: Array
    scale: Array
    bias: Array
    bias_scale: Array | None
    tolerance: Array
    constant: Array


@dataclass(frozen=True)
class Trained:
    """A checkpoint's records, tensors, and what the network computes from these alone."""

    records: NetworkRecords
    tensors: Mapping[str, Array]
    computed: Mapping[str, Array] = field(default_factory=dict)

    @cached_property
    def quantizers(self) -> dict[str, ExpectedQuantizer]:
        """Activations by name, a max pool that passes codes on among them."""
        own = {record.name: self._quantizer(record) for record in self.records.quantizers}
        return own | {pool: own[source] for pool, source in self.records.repeated.items()}

    @cached_property
    def layers(self) -> dict[str, ExpectedLayer]:
        return {record.name: self._layer(record) for record in self.records.layers}

    def tensor(self, name: str) -> Array:
        """A tensor of the checkpoint.

        Raises:
            ArtifactError: the records name one that it does not hold.
        """
        if name not in self.tensors:
            raise ArtifactError(f"The checkpoint's records name the tensor {name!r}, which it does not hold.")
        return self.tensors[name]

    def scale(self, record: QuantizerRecord) -> np.float32:
        """Float32 value of one trained code."""
        alpha = np.float32(self.tensor(record.clip_level_name))
        if record.kind == "lsq":
            alpha = max(alpha, _STEP_FLOOR)
        return np.float32(max(abs(alpha), _ALPHA_FLOOR) / np.float32(record.codes.unit))

    def _quantizer(self, record: QuantizerRecord) -> ExpectedQuantizer:
        scale, codes, offset = self.scale(record), record.codes, None
        minimum, maximum = codes.minimum, codes.maximum
        if record.offset_name is not None:
            offset = np.float32(self.tensor(record.offset_name))
        if record.counts_from_zero and offset is not None:
            zero = np.clip(np.rint(-offset / scale), np.float32(minimum), np.float32(maximum))
            offset = np.float32(offset + scale * zero)
            minimum, maximum = minimum - int(zero), maximum - int(zero)
        if record.zero_below:
            minimum = max(minimum, 0)
        if record.ceiling is not None:
            maximum = min(maximum, int(np.rint(np.float32(record.ceiling) / scale)))
        return ExpectedQuantizer(record, scale, minimum, maximum, offset)

    def batch_norm(self, record: BatchNormRecord) -> tuple[Array, Array]:
        """Gain and shift of a BatchNorm in evaluation, float64 (channels,)."""
        variance = self.tensor(f"{record.name}.running_var").astype(np.float64)
        mean = self.tensor(f"{record.name}.running_mean").astype(np.float64)
        deviation = np.sqrt(variance + record.eps)
        if not record.affine:
            return 1 / deviation, -mean / deviation
        gain = self.tensor(f"{record.name}.weight").astype(np.float64) / deviation
        return gain, self.tensor(f"{record.name}.bias").astype(np.float64) - mean * gain

    def weight_codes(self, record: LayerRecord) -> Array:
        """Trained codes, int64, the weight's shape."""
        weight, codes = self.tensor(record.weight_name).astype(np.float32), record.weight.codes
        if record.mean is not None and record.deviation is not None:
            weight = (weight - np.float32(record.mean)) / np.float32(record.deviation)
        if record.weight.kind == "dorefa":
            squashed = np.tanh(weight.astype(np.float64)).astype(np.float32)
            width = np.abs(squashed).max()
            weight = squashed / (width if width > 0 else np.float32(1))
            weight = weight * np.float32(self.tensor(record.weight.clip_level_name))
        steps = weight / self.scale(record.weight)
        if codes.step == 1:
            return _clipped(np.rint(steps), codes)
        n = np.float32(codes.unit)
        odd = 2 * np.rint((steps + n) / np.float32(2)) - n
        return _clipped(odd, codes)

    def _gain_and_bias(self, record: LayerRecord) -> tuple[Array, Array]:
        out = len(self.tensor(record.weight_name))
        own = np.zeros(out)
        if record.bias_name is not None:
            own = self.tensor(record.bias_name).astype(np.float64)
        if record.channel_gain_name is not None:
            return self.tensor(record.channel_gain_name).astype(np.float64), own
        if record.batch_norm is None:
            return np.ones(out), own
        gain, shift = self.batch_norm(record.batch_norm)
        return gain, own * gain + shift

    def _layer(self, record: LayerRecord) -> ExpectedLayer:
        gain, bias = self._gain_and_bias(record)
        base = self.scale(record.weight)
        if record.rescale_std and record.deviation is not None:
            base = np.float32(base * np.float32(record.deviation))
        refinement = np.float32(record.refinement)
        scale = (np.float64(base) * np.abs(gain)).astype(np.float32) / refinement
        alive = scale > np.finfo(np.float32).tiny
        scale = np.where(alive, scale, base / refinement)
        sign = np.where(alive, np.sign(gain), 0).astype(np.int64)
        codes = self.weight_codes(record)
        codes = codes * (record.refinement * sign).reshape(-1, *[1] * (codes.ndim - 1))
        source = None if record.input is None else self.quantizers[record.input]
        if source is not None and source.offset is not None:
            sums = codes.reshape(len(codes), -1).sum(1) * scale.astype(np.float64)
            bias = bias + np.float64(source.offset) * sums
        return self._with_bias(record, codes, scale, bias, None if source is None else source.scale)

    def _with_bias(
        self, record: LayerRecord, codes: Array, scale: Array, bias: Array, input_scale: np.float32 | None
    ) -> ExpectedLayer:
        factor, nowhere = np.float32(record.factor), np.zeros(len(bias), bool)
        if input_scale is None:
            bias = bias * record.factor
            return ExpectedLayer(record, codes, scale * factor, bias, None, np.zeros(len(bias)), nowhere)
        unit = input_scale * scale
        constant = np.abs(bias) > unit.astype(np.float64) * _LARGEST_BIAS_CODE
        wide = np.abs(bias) / (_CONSTANT_BIAS_CODE * np.float64(input_scale))
        scale = np.where(constant, wide.astype(np.float32), scale)
        codes = np.where(constant.reshape(-1, *[1] * (codes.ndim - 1)), 0, codes)
        unit = input_scale * scale
        tolerance = 0.5 + _BIAS_ROUNDING * np.abs(bias) / unit.astype(np.float64)
        return ExpectedLayer(
            record, codes, scale * factor, bias * record.factor, unit * factor, tolerance, constant
        )


def _clipped(codes: Array, legal: CodesRecord) -> Array:
    clipped: Array = np.clip(codes, legal.minimum, legal.maximum).astype(np.int64)
    return clipped


def read_trained(folder: Path) -> Trained:
    """Read a checkpoint's records and tensors.

    Raises:
        ArtifactError: a file is missing or no such file; without records nothing can be accounted for.
    """
    path = folder / "records.json"
    if not path.is_file():
        raise ArtifactError(
            f"{folder}: no records.json, so the checkpoint does not say what was trained. It is of a network "
            "in full precision, or of an older version: train again, or use the version that wrote it."
        )
    try:
        records = records_from_json(json.loads(path.read_text(encoding="utf-8")), str(path))
        computed = folder / "computed.safetensors"
        return Trained(
            records, load_file(folder / "model.safetensors"), load_file(computed) if computed.exists() else {}
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise ArtifactError(f"{folder}: the checkpoint cannot be read: {error}.") from error
