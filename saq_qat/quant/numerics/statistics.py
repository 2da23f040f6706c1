"""BatchNorm's running statistics, estimated anew."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["averaged_statistics", "tracking_norms"]


def tracking_norms(network: nn.Module) -> list[_BatchNorm]:
    """Every BatchNorm that keeps running statistics."""
    return [
        module
        for module in network.modules()
        if isinstance(module, _BatchNorm) and module.track_running_stats
    ]


@contextmanager
def averaged_statistics(network: nn.Module) -> Iterator[None]:
    """Evaluation mode, but for BatchNorm: its statistics become the mean over this context's batches.

    Each forward pass counts the same: the running mean ends as the mean of the batches' means, the running
    variance as the mean of their unbiased variances (momentum None, from a reset). Modes and momenta are
    those of before afterwards.
    """
    norms = tracking_norms(network)
    momenta = [norm.momentum for norm in norms]
    training = network.training
    network.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        network.train(training)
