"""What a loader process is at, where the process that waits for it can read it after a sudden death."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

__all__ = ["Notes", "note_image"]

_NAME_BYTES = 1024


@dataclass(frozen=True)
class Notes:
    """One line for each of ``workers`` loader processes, in memory that all of them share.

    Attributes:
        at: int64 [workers, 3]: process, the batch it prepares (-1 before any), bytes of the image's name.
        names: uint8 [workers, 1024], the end of the image's name.
    """

    workers: int
    at: Tensor = field(init=False)
    names: Tensor = field(init=False)

    def __post_init__(self) -> None:
        at = torch.full((self.workers, 3), -1)
        names = torch.zeros(self.workers, _NAME_BYTES, dtype=torch.uint8)
        for name, lines in (("at", at), ("names", names)):
            object.__setattr__(self, name, lines.share_memory_())  # type: ignore[no-untyped-call]  # torch's

    def begin(self, process: int, batch: int) -> None:
        """Say, as a loader process, which batch is next; ``note_image`` names images of it from now on."""
        worker = get_worker_info()
        if worker is not None:
            self.at[worker.id] = torch.tensor([process, batch, 0])
            _lines[:] = [(self.at[worker.id], self.names[worker.id].numpy())]

    def of(self, process: int) -> tuple[int, str] | None:
        """The batch and the image's name, empty for images in memory, that a process was at last."""
        for line, name in zip(self.at.tolist(), self.names, strict=True):
            if line[0] == process:
                return line[1], bytes(name[: line[2]].tolist()).decode("utf-8", "replace")
        return None


_lines: list[tuple[Tensor, np.ndarray]] = []
"""Of this process, if it is a loader: where it notes."""


def note_image(name: str) -> None:
    """Note that the file of an image is read now; does nothing outside of loader processes."""
    for line, place in _lines:
        encoded = name.encode("utf-8", "surrogateescape")[-_NAME_BYTES:]
        place[: len(encoded)] = np.frombuffer(encoded, np.uint8)
        line[2] = len(encoded)
