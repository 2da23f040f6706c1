"""One process or many, by what the launcher (torchrun) says in the environment."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from saq_qat.errors import RecipeError, SaqError, SetupError
from saq_qat.patience import TIMEOUT_VARIABLE, patience_seconds

__all__ = ["Processes", "joined_processes"]

_LONGEST_NUMBER = 10
_LAST_PORT = 65_535
_LAUNCH = "Start several processes with torchrun; for one alone, unset WORLD_SIZE, RANK and LOCAL_RANK."


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: 0 writes files and shows progress.
        device: its own GPU if there is one, else the CPU.
    """

    rank: int
    world_size: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share_of(self, batch_size: int, micro_batch_size: int | None) -> int:
        """Images of a global batch that this process trains on.

        Raises:
            RecipeError: they cannot be split evenly, into processes or into micro-batches.
        """
        share, rest = divmod(batch_size, self.world_size)
        if rest:
            raise RecipeError(
                f"train.batch_size must be a multiple of the number of processes; got {batch_size} and "
                f"{self.world_size}."
            )
        if micro_batch_size is not None and share % micro_batch_size:
            raise RecipeError(
                f"train.micro_batch_size must divide each process's share of a batch; got {micro_batch_size} "
                f"and a share of {share} (batch_size {batch_size}, {self.world_size} processes)."
            )
        return share

    @torch.no_grad()
    def align(self, network: nn.Module) -> None:
        """Give every process the first one's parameters and buffers, in place.

        Steps keep replicas equal, for they share gradients; here that begins.
        """
        if self.world_size == 1:
            return
        for tensor in (*network.parameters(), *network.buffers()):
            own = tensor.detach().contiguous()
            dist.broadcast(own, src=0)
            tensor.copy_(own)

    def total(self, values: list[float]) -> list[float]:
        """Each value summed over the processes, in float64."""
        if self.world_size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        totals: list[float] = tensor.tolist()
        return totals

    def largest(self, value: int) -> int:
        """The largest of the processes' values, so that they decide alike."""
        if self.world_size == 1:
            return value
        tensor = torch.tensor(value, device=self.device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return int(tensor)

    def same_text(self, text: str) -> str:
        """The first process's ``text``, at most 4096 bytes of UTF-8, on every process."""
        if self.world_size == 1:
            return text
        content = torch.zeros(4096, dtype=torch.uint8)
        encoded = torch.tensor(list(text.encode()), dtype=torch.uint8)
        content[: len(encoded)] = encoded
        content = content.to(self.device)
        dist.broadcast(content, src=0)
        return bytes(content.tolist()).rstrip(b"\0").decode()

    @torch.no_grad()
    def average_statistics(self, network: nn.Module) -> None:
        """Give every process the mean of the processes' BatchNorm running statistics, in place."""
        if self.world_size == 1:
            return
        for module in network.modules():
            if (
                isinstance(module, _BatchNorm)
                and module.running_mean is not None
                and module.running_var is not None
            ):
                for statistic in (module.running_mean, module.running_var):
                    dist.all_reduce(statistic)
                    statistic /= self.world_size


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """Join the process group that the environment announces; a single process needs none.

    An existing process group is used and left standing.

    Raises:
        SetupError: the launcher started more processes on this machine than it has GPUs, or the environment
            says something that no launcher says.
        SaqError: another process ended, or did not answer in time.
    """
    local_rank, world_size = _number("LOCAL_RANK", 0), _number("WORLD_SIZE", 1)
    device = torch.device("cuda", local_rank) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise SetupError(
                f"Each process needs a GPU of its own; this is process {local_rank + 1} and the machine has "
                f"{torch.cuda.device_count()}. Start torchrun with as many processes as GPUs."
            )
        torch.cuda.set_device(device)
    started = world_size > 1 and not dist.is_initialized()
    if started:
        patience = timedelta(seconds=patience_seconds())
        _check_launched(world_size)
        with _told():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=patience)
    try:
        if dist.is_initialized():
            with _told():
                yield Processes(dist.get_rank(), dist.get_world_size(), device)
        else:
            yield Processes(0, 1, device)
    finally:
        if started:
            dist.destroy_process_group()


def _number(name: str, least: int) -> int:
    """What the launcher says in the environment, or ``least`` if it says nothing."""
    text = os.environ.get(name, str(least))
    number = int(text) if text.isascii() and text.isdigit() and len(text) < _LONGEST_NUMBER else -1
    if number < least:
        raise SetupError(
            f"{name} must be a whole number from {least} on, as torchrun sets it; got {text!r}. {_LAUNCH}"
        )
    return number


def _check_launched(world_size: int) -> None:
    """Whether the environment says how this process finds the others."""
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise SetupError(
            f"WORLD_SIZE announces {world_size} processes, and the environment lacks {', '.join(missing)}. "
            f"{_LAUNCH}"
        )
    rank, port = _number("RANK", 0), _number("MASTER_PORT", 1)
    if rank >= world_size or port > _LAST_PORT:
        raise SetupError(
            f"RANK must be below WORLD_SIZE = {world_size}, and MASTER_PORT at most {_LAST_PORT}; got {rank} "
            f"and {port}. {_LAUNCH}"
        )


@contextmanager
def _told() -> Iterator[None]:
    """Say of an error of the connection between processes what it means."""
    try:
        yield
    except RuntimeError as error:
        if not _is_of_connection(error):
            raise
        late = "timed out" in str(error).lower() or "timeout" in str(error).lower()
        what = (
            f"did not answer within {patience_seconds()} s ({TIMEOUT_VARIABLE} sets how long to "
            "wait). It hangs, or waits for something that takes longer"
            if late
            else "ended. Its own message says why"
        )
        first = str(error).strip().partition("\n")[0]
        raise SaqError(
            f"Process {os.environ.get('RANK', '0')} of {os.environ.get('WORLD_SIZE', '1')}: another process "
            f"{what}. The last checkpoint is intact; start torchrun again with train --resume. ({first})"
        ) from error


def _is_of_connection(error: RuntimeError) -> bool:
    """gloo's are plain RuntimeErrors that name their source file; NCCL's and the store's have a type."""
    return isinstance(error, dist.DistError) or "/gloo/" in str(error)
