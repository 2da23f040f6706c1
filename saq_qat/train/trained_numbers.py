"""Numbers of a checkpoint that no training leaves: its files may be whole and its names right."""

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, fx, nn

from saq_qat.errors import ArtifactError
from saq_qat.quant.deploy.recorded import fill_records
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.quant.numerics.statistics import tracking_norms
from saq_qat.quant.plan.records import NetworkRecords, QuantizerRecord

__all__ = ["check_finite", "check_trained_numbers", "not_finite", "unwritable_record"]

_SMALLEST = torch.finfo(torch.float32).tiny


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Name of the first tensor that holds infinity or NaN."""
    return next(
        (n for n, t in tensors.items() if t.is_floating_point() and not bool(t.isfinite().all())), None
    )


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse tensors of a checkpoint that hold infinity or NaN.

    Raises:
        ArtifactError: one does; names it.
    """
    wrong = not_finite(tensors)
    if wrong:
        raise _no_training_left(where, f"{wrong} holds numbers that are not finite")


@torch.no_grad()
def check_trained_numbers(network: nn.Module, records: NetworkRecords | None, where: str) -> None:
    """Refuse a network with the weights of a checkpoint whose state is that of no training.

    A learned clip level may be negative, as it counts by its magnitude, and a variance may be 0, as that of a
    channel without any signal is.

    Args:
        records: those of the checkpoint, which hold its clip levels a second time; None in full precision.

    Raises:
        ArtifactError: a quantizer was never initialised, a clip level is 0, below the normal numbers, or not
            the one in the records; a variance or a counter is negative; or the weights are so large that what
            is derived of them is not finite. Names the tensor.
    """
    wrong = next(_wrong_numbers(network), None)
    if wrong is None and records is not None and isinstance(network, fx.GraphModule):
        filled = fill_records(records, network)
        wrong = unwritable_record(filled) or _other_clip_level(records, filled)
    if wrong:
        raise _no_training_left(where, wrong)


def unwritable_record(records: NetworkRecords) -> str | None:
    """What is wrong with the first record whose numbers are not finite; None where all are."""
    numbers = [(each.name, (each.clip_level, each.scale, each.offset)) for each in _quantizers(records)]
    numbers += [(layer.name, (layer.mean, layer.deviation, None)) for layer in records.layers]
    for name, values in numbers:
        if not all(value is None or math.isfinite(value) for value in values):
            return f"the weights or clip levels of {name} are so large that its scale is not finite"
    return None


def _wrong_numbers(network: nn.Module) -> Iterator[str]:
    for name, module in network.named_modules():
        if isinstance(module, Quantizer):
            wrong = _wrong_quantizer(module)
            if wrong:
                yield f"{name}.{wrong}"
    names = {module: name for name, module in network.named_modules()}
    for norm in tracking_norms(network):
        for key, values in (
            ("running_var", norm.running_var),
            ("num_batches_tracked", norm.num_batches_tracked),
        ):
            if values is not None and bool((values < 0).any()):
                yield f"{names[norm]}.{key} is negative"


def _wrong_quantizer(quantizer: Quantizer) -> str | None:
    level = float(quantizer.alpha)
    if not bool(quantizer.initialised):
        return "initialised is false, so its clip level means nothing"
    if abs(level) < _SMALLEST:
        return f"alpha is {level:g}, and no clip level or step is 0 or below the normal numbers"
    if level < 0 and quantizer.kind.learns != "clip level":
        return f"alpha is {level:g}, and must be positive"
    return None


def _other_clip_level(stored: NetworkRecords, loaded: NetworkRecords) -> str | None:
    for before, now in zip(_quantizers(stored), _quantizers(loaded), strict=True):
        if before.clip_level is not None and before.clip_level != now.clip_level:
            return f"{now.clip_level_name} is {now.clip_level:g}, and {before.clip_level:g} in records.json"
    return None


def _quantizers(records: NetworkRecords) -> Iterator[QuantizerRecord]:
    yield from records.quantizers
    yield from (layer.weight for layer in records.layers)


def _no_training_left(where: str, wrong: str) -> ArtifactError:
    return ArtifactError(
        f"{where}: {wrong}. Its hashes are right, so it was edited, or another program wrote it. Put a "
        "checkpoint back that training wrote, or start a new run."
    )
