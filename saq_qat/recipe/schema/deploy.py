"""The `deploy` section: where the network will run and what that may cost."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from saq_qat.recipe.schema.base import BrokenRule, NonNegative, Section
from saq_qat.recipe.schema.tensorrt import TensorRt

__all__ = ["Cpu", "Deploy", "OnnxRuntime", "Target", "Thresholds"]

Cpu = Literal["any", "vnni"]
Target = Literal["onnxruntime", "openvino", "tensorrt"]


class OnnxRuntime(Section):
    """On which CPUs the file for ONNX Runtime gives the trained codes."""

    cpu: Cpu = Field(
        default="any",
        description="any: the same codes on every CPU, in every session; 8-bit weights behind 8-bit signed "
        "activations are -63..63. vnni: they keep -127..127, one bit more; plain sessions on x86 CPUs "
        "without VNNI then give other codes, and Session asks the engine for exact, slower kernels there.",
    )


class Thresholds(Section):
    """What deployment may cost before the gate fails."""

    max_top1_drop: NonNegative = Field(
        default=1.0,
        le=100,
        description="Percentage points of top-1 that deployment may lose against fake-quant.",
    )
    max_flip_rate: NonNegative = Field(
        default=0.05,
        le=1,
        description="Share of predictions (0 to 1) that deployment may change from fake-quant.",
    )
    max_constant_channels: int = Field(
        default=0,
        ge=0,
        description="Channels whose weights deployment may drop, because the bias exceeds 2^30 of its steps "
        "(a BatchNorm of almost no variance makes such channels).",
    )


class Deploy(Section):
    """Where the network will run and what that may cost."""

    targets: tuple[Target, ...] = Field(
        default=("onnxruntime",),
        description="Where the network will run; decides where quantizers stand and what is legal. "
        "onnxruntime: CPUs; openvino: x86 CPUs, faster; tensorrt: NVIDIA GPUs, "
        "TensorRT or TensorRT-RTX. [] trains without deployment.",
    )
    refine_bias: bool = Field(
        default=True,
        description="Store low-bit weight codes times a power of two, for a finer grid of biases.",
    )
    pack_weights: bool = Field(
        default=True, description="Store weights of up to 4 bits as uint4, unpacked at load."
    )
    thresholds: Thresholds = Field(
        default=Thresholds(), description="What deployment may cost before the gate fails."
    )
    onnxruntime: OnnxRuntime = Field(
        default=OnnxRuntime(), description="On which CPUs the file for ONNX Runtime gives the trained codes."
    )
    tensorrt: TensorRt = Field(default=TensorRt(), description="How a TensorRT engine is built.")

    def broken_rules(self) -> Iterator[BrokenRule]:
        if len(set(self.targets)) < len(self.targets):
            yield "targets", "names a target twice"
