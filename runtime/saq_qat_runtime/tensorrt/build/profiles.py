"""Inputs and outputs of a network, of which the batch alone may be dynamic.

The building process imports this module: standard library only.
"""

from collections.abc import Iterable

from saq_qat_runtime.bundle.records import TensorSpec
from saq_qat_runtime.tensorrt.build.exchange import BuildFailure

__all__ = ["RawTensor", "tensor_specs"]

RawTensor = tuple[str, str, tuple[int, ...]]
"""Name, dtype as NumPy calls it, and shape with -1 for what is dynamic."""


def tensor_specs(kind: str, tensors: Iterable[RawTensor]) -> tuple[TensorSpec, ...]:
    """The tensors with "N" for a dynamic batch.

    Raises:
        BuildFailure: another dimension is dynamic.
    """
    return tuple(_spec(kind, tensor) for tensor in tensors)


def _spec(kind: str, tensor: RawTensor) -> TensorSpec:
    name, dtype, shape = tensor
    if any(size < 0 for size in shape[1:]):
        shown = ", ".join("?" if size < 0 else str(size) for size in shape)
        rule = "only the first dimension, the batch, may be dynamic: export the graph with fixed sizes"
        raise BuildFailure("configure", (f"{kind} {name} has the shape ({shown}); {rule}.",))
    return TensorSpec(name, dtype, ("N", *shape[1:]) if shape[:1] == (-1,) else shape)
