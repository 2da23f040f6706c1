"""What the arguments of the calls in Python must be: sections, checked by the rules of recipes."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import torch
from pydantic import InstanceOf
from torch import Tensor

from saq_qat.recipe.schema.base import Deviation, Finite, Section, Side
from saq_qat.train.choose import CheckpointName
from saq_qat.train.progress import Progress
from saq_qat_export.proof.prove import ProofSize

__all__ = ["ExportSettings", "Pictures", "ProofSettings", "TrainSettings", "as_list"]


class TrainSettings(Section):
    """Arguments as of ``saq_qat.train``."""

    overrides: tuple[str, ...]
    on_progress: Callable[[Progress], None]


class ProofSettings(Section):
    """How a proof is made; arguments as of ``saq_qat.verify``."""

    size: InstanceOf[ProofSize] | None
    on_step: Callable[[str], None]


class ExportSettings(ProofSettings):
    """What runs and networks of the caller's own share, and the checkpoint; as of ``saq_qat.export``."""

    tensorrt: bool
    allow_failed_gate: bool
    checkpoint: CheckpointName | None


class Pictures(Section):
    """How pictures become the input, and what the answers are called; as of ``saq_qat.export``."""

    classes: tuple[str, ...] | None
    mean: tuple[Finite, ...] | None
    std: tuple[Deviation, ...] | None
    resize: Side | None
    name: str | None


def as_list(value: Any, most: int) -> Any:
    """A tuple of what any iterable gives, arrays and tensors included; anything else as it is.

    Args:
        most: items that are right; of an iterator, which may never end, one more is taken to be refused.
    """
    if isinstance(value, Tensor) and (value.is_meta or value.layout != torch.strided):
        return value  # it holds no list of numbers
    plain = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(plain, str | bytes) or not isinstance(plain, Iterable):
        return plain
    return tuple(item.item() if hasattr(item, "item") else item for item in islice(plain, most + 1))
