"""How much memory training takes: what lasts between steps, and what a step takes beside it."""

import os
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.profiler import ProfilerActivity, profile

from saq_qat.optim.update import TrainingStep

__all__ = ["held_bytes", "peak_bytes"]


def held_bytes(network: nn.Module, optimizer: Optimizer, step: TrainingStep) -> int:
    """Bytes of parameters and buffers, and of what the optimizer and the method keep for the next step."""
    moments = [value for state in optimizer.state.values() for value in state.values()]
    tensors = [*network.parameters(), *network.buffers(), *step.state_dict().values()]
    tensors += [value for value in moments if isinstance(value, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def peak_bytes(function: Callable[[], object], device: torch.device) -> int:
    """Largest number of bytes that tensors take at once while ``function`` runs, beside those of before.

    On a CPU torch's profiler tells every allocation and release; what lasts after the call counts too.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        return int(torch.cuda.max_memory_allocated(device)) - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it would report its own start and end
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as measured:
        function()
    events = measured.profiler.kineto_results.events()
    taken = peak = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        taken += event.nbytes()
        peak = max(peak, taken)
    return peak
