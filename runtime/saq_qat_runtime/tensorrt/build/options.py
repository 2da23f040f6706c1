"""How an engine shall be built; the counterpart of the recipe's section `deploy.tensorrt`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from saq_qat.errors import RecipeError
from saq_qat_runtime.tensorrt.engine_record import Flavour

__all__ = ["BuildOptions", "WantedFlavour"]

WantedFlavour = Literal["auto", "tensorrt", "tensorrt-rtx"]
_HIGHEST_LEVEL = 5


@dataclass(frozen=True)
class BuildOptions:
    """Settings of one build.

    Attributes:
        flavour: which library builds; auto takes what the machine has.
        precision: of what runs between the int8 layers. It describes the graph: networks are strongly typed,
            so the builder takes every type from there.
        batch: smallest, usual and largest batch, for inputs whose first dimension is dynamic.
        workspace_mib: scratch memory that kernels may use, in MiB.
        optimization_level: 0 (fast build) to 5 (longest search for fast kernels).
        hardware_compatibility, version_compatible: where else the engine shall load; Enterprise only.
        timing_cache: file of measured kernel times, read if it exists and written after the build;
            Enterprise only.
        timeout_seconds: a build that takes longer is ended.

    Raises:
        RecipeError: a value is out of range.
    """

    flavour: WantedFlavour = "auto"
    precision: Literal["float32", "float16"] = "float32"
    batch: tuple[int, int, int] = (1, 8, 32)
    workspace_mib: int = 4096
    optimization_level: int = 3
    hardware_compatibility: Literal["none", "ampere_plus", "same_compute_capability"] = "none"
    version_compatible: bool = False
    timing_cache: Path | None = None
    timeout_seconds: float = 3600.0

    def __post_init__(self) -> None:
        smallest, usual, largest = self.batch
        if not 1 <= smallest <= usual <= largest:
            raise RecipeError(
                f"deploy.tensorrt.batch: needs 1 <= minimum <= optimum <= maximum, got {list(self.batch)}."
            )
        if self.workspace_mib < 1:
            raise RecipeError(f"deploy.tensorrt.workspace_mib: must be at least 1, got {self.workspace_mib}.")
        if not 0 <= self.optimization_level <= _HIGHEST_LEVEL:
            raise RecipeError(
                f"deploy.tensorrt.optimization_level: must be 0 to {_HIGHEST_LEVEL}, "
                f"got {self.optimization_level}."
            )
        if self.timeout_seconds <= 0:
            raise RecipeError(f"The timeout must be positive, got {self.timeout_seconds} s.")

    def require_supported_by(self, flavour: Flavour) -> None:
        """Raise RecipeError if ``flavour`` cannot do what these options ask for."""
        if flavour == "tensorrt":
            return
        if self.version_compatible:
            raise RecipeError(
                "deploy.tensorrt.version_compatible: TensorRT-RTX has no lean runtime; its engines load in "
                "the version that built them only. Set it to false, or build with the flavour tensorrt."
            )
        if self.hardware_compatibility != "none":
            raise RecipeError(
                f"deploy.tensorrt.hardware_compatibility: {self.hardware_compatibility} is a mode of "
                "Enterprise TensorRT; an engine of TensorRT-RTX runs on all GPUs from Ampere on without it. "
                "Set it to none, or build with the flavour tensorrt."
            )
