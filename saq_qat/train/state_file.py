"""state.json of a checkpoint: where a training stands, every value of its kind and in its range."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from saq_qat.errors import ArtifactError
from saq_qat_runtime.bundle.decode import decode, require
from saq_qat_runtime.errors import ModelError

__all__ = ["Form", "Position", "check_state", "progress_at_start"]

Form = Literal["float", "quantized", "deploy"]

_SINCE_FORMAT = {"data": 3, "recipe": 4}
"""Fields that older formats lack; they are read elsewhere."""


_LARGEST_LOG = 1 << 40
"""Bytes of a log: a thousand lines of a thousand layers take a ten-thousandth."""
_LARGEST_LOSS, _ROUNDING = 3.4028235e38, 1e-3
"""Of a batch: the largest float32, and how far below 0 the divergence from a teacher may be rounded."""


@dataclass(frozen=True)
class Position:
    """The next batch: stage, epoch of the stage, batch of the epoch; ``step`` counts since the start."""

    stage: int = 0
    epoch: int = 0
    batch: int = 0
    step: int = 0


@dataclass(frozen=True)
class _Progress:
    """Attributes as in ``Training``; ``log_bytes``: of log.jsonl; ``teacher``, ``images``, ``image_files``:
    their SHA-256."""

    loss_sum: float
    best: float | None
    accuracy: dict[str, float | None]
    log_bytes: int
    teacher: str | None = None
    images: str | None = None
    image_files: str | None = None
    seconds: float = 0.0
    waited: float = 0.0

    def __post_init__(self) -> None:
        inside = 0 <= self.log_bytes <= _LARGEST_LOG
        require(inside, f"log_bytes must lie in 0..{_LARGEST_LOG}, got {self.log_bytes}.")
        require(self.seconds >= 0 and self.waited >= 0, "seconds and waited must not be negative.")
        percents = {"best": self.best, **{n: v for n, v in self.accuracy.items() if n != "val_loss"}}
        val_loss = self.accuracy.get("val_loss")
        require(val_loss is None or val_loss >= 0, f"val_loss must not be negative, got {val_loss}.")
        for name, value in percents.items():
            require(value is None or 0 <= value <= 100, f"{name} must lie in 0..100 percent, got {value}.")


@dataclass(frozen=True)
class _State:
    format: int
    form: Form
    world_size: int
    position: Position
    progress: _Progress

    def __post_init__(self) -> None:
        require(self.format >= 1, f"format must be at least 1, got {self.format}.")
        require(self.world_size >= 1, f"world_size must be at least 1, got {self.world_size}.")
        for name, value in asdict(self.position).items():
            require(value >= 0, f"position.{name} must not be negative, got {value}.")


def progress_at_start() -> dict[str, Any]:
    """Of a checkpoint before the first step."""
    return {"loss_sum": 0.0, "best": None, "accuracy": {}, "log_bytes": 0, "teacher": None}


def check_state(state: Mapping[str, Any], where: str) -> None:
    """Refuse a state.json that ``write_checkpoint`` did not write.

    What it says must also suit the recipe: that is ``check_standing``'s to see.

    Raises:
        ArtifactError: a key is unknown or missing, or its value of another kind or out of range; names both.
    """
    own = {key: value for key, value in state.items() if key not in _SINCE_FORMAT}
    try:
        found = decode(_State, own, where)
        for key, since in _SINCE_FORMAT.items():
            require(key in state or state["format"] < since, f"{where}: missing field {key!r}.")
            kind = type(state.get(key))
            require(kind in (dict, type(None)), f"{where}.{key}: expected an object, got {kind.__name__}.")
        for item in fields(Position):
            require(item.name in state["position"], f"{where}.position: missing field {item.name!r}.")
        batch, loss_sum = found.position.batch, found.progress.loss_sum
        require(
            -_ROUNDING * batch <= loss_sum <= _LARGEST_LOSS * batch,
            f"{where}.progress: loss_sum must be that of {batch} losses from 0 on, got {loss_sum}.",
        )
    except ModelError as error:
        raise ArtifactError(
            f"{error} Its hash is right, so it was edited, or written by another program; put back what "
            "training wrote."
        ) from error
