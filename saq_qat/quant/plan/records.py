"""Records: what a checkpoint says of its network, so that every number of an exported file has an owner.

Plain numbers and names only; whoever reads them needs neither torch nor the code that built the network.
The plan gives records without numbers, training fills them, the checkpoint stores them, and the file that
ships is compared with them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, get_type_hints

from saq_qat.errors import ArtifactError

__all__ = [
    "BatchNormRecord",
    "CodesRecord",
    "FloatRecord",
    "LayerRecord",
    "NetworkRecords",
    "QuantizerRecord",
    "WindowRecord",
    "differences",
    "records_from_json",
    "records_to_json",
    "without_numbers",
]


@dataclass(frozen=True)
class CodesRecord:
    """Legal codes ``minimum, minimum + step, ..., maximum``; ``unit`` is the code at the clip level."""

    minimum: int
    maximum: int
    unit: int
    step: int = 1


@dataclass(frozen=True)
class QuantizerRecord:
    """One quantizer, of a weight or of an activation.

    Attributes:
        name: the layer's for a weight, the plan's for an activation.
        role: ``weight``, ``image``, ``input``, ``operand``, ``residual`` or ``pooled``.
        axis: of the scales that deployment gives it: 0 for weights, one for each channel; None for a tensor
            with a single scale.
        consumers: layers and graph nodes that read its codes.
        clip_level_name, offset_name: tensors of the checkpoint that place it.
        counts_from_zero: codes are counted from the code of zero.
        zero_below, ceiling: a ReLU (ReLU6) before it lives on as bounds of its codes: nothing below 0,
            nothing above ``ceiling`` (None: no bound).
        clip_level: or step size. offset: value of code 0. scale: value of one code; float32. None before
            training.
    """

    name: str
    role: str
    kind: str
    bits: int
    codes: CodesRecord
    axis: int | None
    consumers: tuple[str, ...]
    clip_level_name: str
    offset_name: str | None = None
    counts_from_zero: bool = False
    zero_below: bool = False
    ceiling: float | None = None
    clip_level: float | None = None
    scale: float | None = None
    offset: float | None = None


@dataclass(frozen=True)
class BatchNormRecord:
    """A BatchNorm by its state: ``<name>.running_mean`` and so on; ``affine``: with gain and shift."""

    name: str
    eps: float
    affine: bool


@dataclass(frozen=True)
class WindowRecord:
    """How a convolution moves over its input: (height, width) each, and its groups."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


@dataclass(frozen=True)
class LayerRecord:
    """One layer with a quantized weight.

    Attributes:
        weight_name, bias_name: tensors of the checkpoint.
        window: of a convolution.
        normalize: the weight is normalised before it is quantized; rescale_std: and its deviation multiplied
            back.
        batch_norm: the BatchNorm that is folded into the layer.
        channel_gain_name: tensor of the gain that a deploy stage has folded into it.
        input: quantizer whose codes it reads; None for floats.
        refinement: power of two that its stored codes are multiplied by.
        factor: power of two that the network multiplies its result by, which its scales hold.
        mean, deviation: of the normalisation, float32; None before training and without it.
    """

    name: str
    op: str
    weight: QuantizerRecord
    weight_name: str
    bias_name: str | None
    window: WindowRecord | None
    normalize: bool
    rescale_std: bool
    batch_norm: BatchNormRecord | None
    channel_gain_name: str | None
    input: str | None
    refinement: int
    factor: float = 1.0
    mean: float | None = None
    deviation: float | None = None


@dataclass(frozen=True)
class FloatRecord:
    """A node that computes in float: tensors of the checkpoint that it reads, and numbers of its code.

    Attributes:
        op: the module's class, or the name of the function or method.
        words: settings that are no numbers, such as the formula of a GELU.
    """

    name: str
    op: str
    tensors: tuple[str, ...] = ()
    numbers: tuple[float, ...] = ()
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class NetworkRecords:
    """A quantized network, in the order of its graph.

    Attributes:
        batch_norms: those that no layer before them absorbs.
        repeated: max pools of codes, by name, with the quantizer whose codes they pass on.
    """

    quantizers: tuple[QuantizerRecord, ...]
    layers: tuple[LayerRecord, ...]
    batch_norms: tuple[BatchNormRecord, ...] = ()
    floats: tuple[FloatRecord, ...] = ()
    repeated: Mapping[str, str] = field(default_factory=dict)


def without_numbers(records: NetworkRecords) -> NetworkRecords:
    """The records as the plan writes them, before anything was trained."""
    return replace(
        records,
        quantizers=tuple(_planned(quantizer) for quantizer in records.quantizers),
        layers=tuple(
            replace(layer, weight=_planned(layer.weight), mean=None, deviation=None)
            for layer in records.layers
        ),
    )


def _planned(record: QuantizerRecord) -> QuantizerRecord:
    return replace(record, clip_level=None, scale=None, offset=None)


def differences(stored: NetworkRecords, planned: NetworkRecords) -> list[str]:
    """Where records without numbers differ, a line each: name, field, both values."""
    before, now = (dict(_flat("", asdict(without_numbers(records)))) for records in (stored, planned))
    owners, owners_now = ({_owner(key) for key in values} for values in (before, now))
    lines = []
    for key in dict.fromkeys([*before, *now]):
        if _owner(key) not in owners:
            lines.append(f"{_owner(key)}: absent in the checkpoint, there today")
        elif _owner(key) not in owners_now:
            lines.append(f"{_owner(key)}: in the checkpoint, absent today")
        elif before.get(key, "absent") != now.get(key, "absent"):
            own, other = before.get(key, "absent"), now.get(key, "absent")
            lines.append(f"{key}: {own} in the checkpoint, {other} today")
    return list(dict.fromkeys(lines))


def _owner(path: str) -> str:
    """The record that a field belongs to: ``layers[conv1]``; empty for what has no name."""
    name, bracket, _ = path.partition("]")
    return name + bracket if bracket else ""


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Leaves by path; an entry of a list that has a name is called by it."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _flat(f"{path}.{key}" if path else key, part)
    elif isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
        for index, part in enumerate(value):
            yield from _flat(f"{path}[{part.get('name', index)}]", part)
    else:
        yield path, value


def records_to_json(records: NetworkRecords) -> dict[str, Any]:
    """As JSON has it: objects, lists, finite numbers."""
    return asdict(records)


def records_from_json(value: Any, where: str) -> NetworkRecords:
    """Records back from what ``records_to_json`` made.

    Raises:
        ArtifactError: something else is there; ``where`` names the file.
    """
    try:
        return NetworkRecords(
            quantizers=tuple(_quantizer(entry) for entry in value["quantizers"]),
            layers=tuple(_layer(entry) for entry in value["layers"]),
            batch_norms=tuple(BatchNormRecord(**_fitted(BatchNormRecord, e)) for e in value["batch_norms"]),
            floats=tuple(FloatRecord(**_fitted(FloatRecord, entry)) for entry in value["floats"]),
            repeated=dict(value["repeated"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{where}: no records of a quantized network; {type(error).__name__}: {error}."
        ) from error


def _quantizer(entry: Mapping[str, Any]) -> QuantizerRecord:
    codes = CodesRecord(**_fitted(CodesRecord, entry["codes"]))
    return QuantizerRecord(**_fitted(QuantizerRecord, entry) | {"codes": codes})


def _layer(entry: Mapping[str, Any]) -> LayerRecord:
    window, norm = entry["window"], entry["batch_norm"]
    parts = {
        "weight": _quantizer(entry["weight"]),
        "window": None if window is None else WindowRecord(**_fitted(WindowRecord, window)),
        "batch_norm": None if norm is None else BatchNormRecord(**_fitted(BatchNormRecord, norm)),
    }
    return LayerRecord(**_fitted(LayerRecord, entry) | parts)


def _fitted(kind: type[Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a record, lists as tuples; every field without a default must be there, and no other."""
    names = {item.name for item in fields(kind)}
    needed = {item.name for item in fields(kind) if item.default is MISSING}
    if not needed <= set(entry) <= names:
        raise ValueError(f"{kind.__name__} has the fields {sorted(names)}, not {sorted(entry)}")
    hints = get_type_hints(kind)
    return {
        name: tuple(value) if isinstance(value, list) and "tuple" in str(hints[name]) else value
        for name, value in entry.items()
    }
