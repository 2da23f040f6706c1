"""What a manifest says of the recipe's section deploy, for the machine where the network runs."""

from dataclasses import dataclass
from typing import Literal

from saq_qat_runtime.bundle.decode import require

__all__ = ["DeployRecord", "TensorRtRecord", "ThresholdsRecord"]


@dataclass(frozen=True)
class ThresholdsRecord:
    """What deployment may cost: percentage points of top-1, and the share of answers (0 to 1) that change."""

    max_top1_drop: float
    max_flip_rate: float

    def __post_init__(self) -> None:
        limits = (self.max_top1_drop, self.max_flip_rate)
        require(all(limit >= 0 for limit in limits), f"thresholds must not be negative, got {limits}.")
        rule = f"max_top1_drop may be 100 at most and max_flip_rate 1, got {limits}."
        require(self.max_top1_drop <= 100 and self.max_flip_rate <= 1, rule)


@dataclass(frozen=True)
class TensorRtRecord:
    """How an engine is to be built of the graph for TensorRT: the recipe's section deploy.tensorrt.

    batch: smallest, usual and largest. precision: that of the graph between its int8 layers.
    """

    precision: Literal["float32", "float16"]
    batch: tuple[int, ...]
    workspace_mib: int
    optimization_level: int
    hardware_compatibility: Literal["none", "ampere_plus", "same_compute_capability"]
    version_compatible: bool

    def __post_init__(self) -> None:
        ordered = list(self.batch) == sorted(self.batch) and all(size >= 1 for size in self.batch)
        require(
            len(self.batch) == 3 and ordered, f"batch needs three sizes in order, got {list(self.batch)}."
        )


@dataclass(frozen=True)
class DeployRecord:
    """What a machine where the network runs has to know of the recipe."""

    thresholds: ThresholdsRecord
    tensorrt: TensorRtRecord
