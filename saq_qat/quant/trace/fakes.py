"""Any operation on tensors without values, by torch's fake tensors."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from saq_qat.quant.trace.size_rules import META

__all__ = ["Fakes", "without_values"]

_LOGGER = logging.getLogger("torch._subclasses.fake_tensor")


class Fakes:
    """Computes with tensors of the meta device as if they were a CPU's: kernels may choose by the device.

    Made only where it is needed: the import takes longer than to trace most networks.
    """

    def __init__(self) -> None:
        from torch._subclasses.fake_tensor import FakeTensorMode

        self._mode = FakeTensorMode(allow_non_fake_inputs=True)

    def run(self, compute: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What ``compute`` gives; tensors in and out of it are on the meta device.

        Raises:
            Exception: whatever torch, or the user's own code, makes of tensors without values.
        """
        with self._mode, torch.no_grad(), _unlogged():
            args, kwargs = tree_map_only(Tensor, _on_cpu, (args, dict(kwargs)))
            result = compute(*args, **kwargs)
        return without_values(result)


def without_values(tree: Any) -> Any:
    """A tensor, or whatever holds some, with tensors of the meta device in their place."""
    return tree_map_only(Tensor, _on_meta, tree)


def _on_meta(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META)


def _on_cpu(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)


@contextmanager
def _unlogged() -> Iterator[None]:
    """What a layer cannot do without values is no error of anybody's."""
    before, _LOGGER.disabled = _LOGGER.disabled, True
    try:
        yield
    finally:
        _LOGGER.disabled = before
