"""What a graph is held against besides itself: the shapes of its engine, the promises of its recipe."""

from dataclasses import dataclass

import onnx
import onnx_ir as ir

from saq_qat_export.lint.nodes import dimensions
from saq_qat_runtime.tensorrt.engine_record import Profile

__all__ = ["LintSettings", "batch_profiles"]


@dataclass(frozen=True)
class LintSettings:
    """Attributes:
    profiles: shapes the engine is to accept, one for each dynamic input.
    narrow_weights: the recipe promises int8 weight codes of at least -127.
    """

    profiles: tuple[Profile, ...] = ()
    narrow_weights: bool = False


def batch_profiles(
    model: onnx.ModelProto | ir.Model, minimum: int, optimum: int, maximum: int
) -> tuple[Profile, ...]:
    """Profiles for the inputs whose first dimension, and no other, is dynamic.

    Raises:
        saq_qat_runtime.errors.ModelError: not 1 <= minimum <= optimum <= maximum.
    """
    read = ir.serde.deserialize_model(model) if isinstance(model, onnx.ModelProto) else model
    profiles = []
    for value in read.graph.inputs:
        sizes = dimensions(value)
        if value.const_value is None and value.name and sizes and sizes[0] is None and None not in sizes[1:]:
            rest = tuple(size for size in sizes[1:] if size is not None)
            profiles.append(Profile(value.name, (minimum, *rest), (optimum, *rest), (maximum, *rest)))
    return tuple(profiles)
