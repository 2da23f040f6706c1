"""The `deploy.tensorrt` section: how a TensorRT engine is built."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from saq_qat.recipe.schema.base import BrokenRule, Count, Section

__all__ = ["BatchRange", "TensorRt"]

_MOST_WORKSPACE = 1 << 20


class BatchRange(Section):
    """Batch sizes an engine accepts: its optimization profile."""

    minimum: Count = Field(default=1, description="Smallest batch the engine accepts.")
    optimum: Count = Field(default=8, description="Batch its kernels are chosen for.")
    maximum: Count = Field(default=32, description="Largest batch the engine accepts.")

    def broken_rules(self) -> Iterator[BrokenRule]:
        if not self.minimum <= self.optimum <= self.maximum:
            yield (
                "optimum",
                f"needs minimum <= optimum <= maximum, got {self.minimum}, {self.optimum}, {self.maximum}",
            )


class TensorRt(Section):
    """How the graph for TensorRT is written and its engine built."""

    precision: Literal["float32", "float16"] = Field(
        default="float32",
        description="Arithmetic between the int8 layers. float16 is faster; it rounds scales and biases.",
    )
    attention: Literal["float", "int8"] = Field(
        default="float",
        description="Products of two activations. float keeps the engine's fused attention; int8 runs them "
        "on the trained codes, as separate layers.",
    )
    batch: BatchRange = Field(default=BatchRange(), description="Batch sizes the engine accepts.")
    workspace_mib: int = Field(
        default=4096, ge=1, le=_MOST_WORKSPACE, description="Scratch memory kernels may use, in MiB."
    )
    optimization_level: int = Field(
        default=3, ge=0, le=5, description="0 builds fast, 5 searches longest for fast kernels."
    )
    hardware_compatibility: Literal["none", "ampere_plus", "same_compute_capability"] = Field(
        default="none",
        description="GPUs an engine runs on. none: the model it was built on; "
        "same_compute_capability, ampere_plus: more GPUs, slower kernels. TensorRT only, not RTX.",
    )
    version_compatible: bool = Field(
        default=False,
        description="Let newer TensorRT versions and the lean runtime load the engine; not for RTX.",
    )
