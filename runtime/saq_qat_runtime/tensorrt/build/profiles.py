"""Shapes that a dynamic input of an engine shall accept.

The building process imports this module: standard library only.
"""

from collections.abc import Iterable, Iterator

from saq_qat_runtime.bundle.records import TensorSpec
from saq_qat_runtime.tensorrt.build.exchange import BuildFailure
from saq_qat_runtime.tensorrt.engine_record import Profile

__all__ = ["RawTensor", "batch_ranges", "tensor_specs"]

RawTensor = tuple[str, str, tuple[int, ...]]
"""Name, dtype as NumPy calls it, and shape with -1 for what is dynamic."""


def batch_ranges(inputs: Iterable[RawTensor], batch: tuple[int, ...]) -> tuple[Profile, ...]:
    """A profile for each input whose batch, and nothing else, is dynamic; none for static ones.

    Raises:
        BuildFailure: another dimension is dynamic, and nobody said how large it may be.
    """
    return tuple(_profiles(inputs, batch))


def _profiles(inputs: Iterable[RawTensor], batch: tuple[int, ...]) -> Iterator[Profile]:
    for name, _, shape in inputs:
        _require_only_batch_dynamic("input", name, shape)
        if shape[:1] == (-1,):
            yield Profile(name, *((size, *shape[1:]) for size in batch))


def tensor_specs(kind: str, tensors: Iterable[RawTensor]) -> tuple[TensorSpec, ...]:
    """The tensors with "N" for a dynamic batch.

    Raises:
        BuildFailure: another dimension is dynamic.
    """
    return tuple(_spec(kind, tensor) for tensor in tensors)


def _spec(kind: str, tensor: RawTensor) -> TensorSpec:
    name, dtype, shape = tensor
    _require_only_batch_dynamic(kind, name, shape)
    return TensorSpec(name, dtype, ("N", *shape[1:]) if shape[:1] == (-1,) else shape)


def _require_only_batch_dynamic(kind: str, name: str, shape: tuple[int, ...]) -> None:
    if any(size < 0 for size in shape[1:]):
        shown = ", ".join("?" if size < 0 else str(size) for size in shape)
        rule = "only the first dimension, the batch, may be dynamic: export the graph with fixed sizes"
        raise BuildFailure("configure", (f"{kind} {name} has the shape ({shown}); {rule}.",))
