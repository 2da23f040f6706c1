"""The modules a deploy view is made of: integers in buffers, float scales beside them."""

from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saq_qat.quant.deploy import ops
from saq_qat.quant.deploy.fold import FoldedLayer, bias_codes, bias_scale
from saq_qat.quant.numerics.layers import QuantConv2d
from saq_qat.quant.numerics.quantizer import Quantizer

__all__ = [
    "ChannelAffine",
    "IntegerConv2d",
    "IntegerLayer",
    "IntegerLinear",
    "Quantize",
    "along_channels",
    "constant_channels",
]

_LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}


class Quantize(nn.Module):
    """Float to stored codes: ``code + zero_point``.

    Attributes:
        scale: 0-dim float32 buffer.
        minimum, maximum: bounds of the code; a ReLU or ReLU6 before the quantizer has become part of them.
        on_grid: the input lies within these bounds already, so that nothing needs to be clipped.
        offset: value of code 0, which the graph subtracts before and layers hold in their biases; None where
            it is 0.
        stored: ``int8`` for the second operand of a product, whose kernels are fastest so; its zero point
            is 0.
    """

    scale: Tensor

    def __init__(
        self,
        scale: Tensor,
        *,
        minimum: int,
        maximum: int,
        zero_point: int,
        bits: int,
        on_grid: bool = False,
        stored: Literal["uint8", "int8"] = "uint8",
        offset: float | None = None,
    ) -> None:
        super().__init__()
        if stored == "int8" and zero_point:
            raise ValueError(f"codes stored as int8 have zero point 0, not {zero_point}")
        self.register_buffer("scale", scale.detach().to(torch.float32, copy=True))
        self.minimum = minimum
        self.maximum = maximum
        self.zero_point = zero_point
        self.bits = bits
        self.on_grid = on_grid
        self.offset = offset
        self.stored: Literal["uint8", "int8"] = stored

    @property
    def stored_bounds(self) -> tuple[int, int]:
        """Bounds that storing the codes needs: those of the type, where the input is on the grid already."""
        if self.on_grid:
            low, high = _LIMITS[self.stored]
            return low - self.zero_point, high - self.zero_point
        return self.minimum, self.maximum

    def forward(self, x: Tensor) -> Tensor:
        low, high = self.stored_bounds
        if self.stored == "int8":
            return cast(Tensor, ops.QUANTIZE_INT8(x, self.scale, low, high))
        return cast(Tensor, ops.QUANTIZE(x, self.scale, self.zero_point, low, high))

    def extra_repr(self) -> str:
        codes = f"{self.minimum}..{self.maximum}"
        return f"{self.bits} bits, {codes} as {self.stored}, zero point {self.zero_point}"


class IntegerLayer(nn.Module):
    """Base of layers with int8 weight codes and, behind a quantized input, int32 bias codes.

    Attributes:
        weight: int8 codes, refined by ``refinement``.
        weight_scale: float32 (out,).
        bias: int32 codes (out,) at ``bias_scale``; float32 (out,) where the input is not quantized.
        bias_scale: float32 (out,), the product of input and weight scale; None where the input is not
            quantized.
        grid, bits: of the trained weight.
        factor: power of two by which the network multiplies what the layer computes; both scales hold it.
        before_rounding: the layer before its bias became codes, without ``factor``; is not exported.
    """

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor
    bias_scale: Tensor | None

    def __init__(
        self, folded: FoldedLayer, input_scale: Tensor | None, quantizer: Quantizer, refinement: int
    ) -> None:
        super().__init__()
        self.bits, self.grid = quantizer.bits, quantizer.grid
        self.refinement = refinement
        self.factor = 1.0
        self.before_rounding = FoldedLayer(folded.codes, folded.scale.clone(), folded.bias.clone())
        codes = folded.bias.float()
        if input_scale is not None:
            folded, codes = bias_codes(folded, input_scale)
        self.register_buffer("weight", folded.codes)
        self.register_buffer("weight_scale", folded.scale)
        self.register_buffer("bias", codes)
        self.register_buffer(
            "bias_scale", None if input_scale is None else bias_scale(input_scale, folded.scale).detach()
        )

    def float_weight(self) -> Tensor:
        return cast(Tensor, ops.DEQUANTIZE_CHANNELS(self.weight, self.weight_scale))

    def float_bias(self) -> Tensor:
        if self.bias_scale is None:
            return self.bias
        return cast(Tensor, ops.DEQUANTIZE_CHANNELS(self.bias, self.bias_scale))


def constant_channels(layer: IntegerLayer) -> Tensor:
    """Bool (out,): channels whose bias outgrew its integers, so that they give it and nothing else."""
    before, after = (codes.flatten(1).ne(0).any(1) for codes in (layer.before_rounding.codes, layer.weight))
    return before & ~after


class IntegerConv2d(IntegerLayer):
    """Convolution on dequantized integers; deployed, dequantize and convolution are one integer kernel."""

    def __init__(
        self, layer: QuantConv2d, folded: FoldedLayer, input_scale: Tensor | None, refinement: int
    ) -> None:
        super().__init__(folded, input_scale, layer.weight_quantizer, refinement)
        self.stride, self.padding = layer.stride, layer.padding
        self.dilation, self.groups = layer.dilation, layer.groups

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(
            x, self.float_weight(), self.float_bias(), self.stride, self.padding, self.dilation, self.groups
        )


class IntegerLinear(IntegerLayer):
    """Linear layer on dequantized integers: (N, ..., in) to (N, ..., out).

    Two axes between the reshapes: the integer kernel is a Gemm.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() <= 2:
            return F.linear(x, self.float_weight(), self.float_bias())
        rows = F.linear(x.reshape(-1, x.shape[-1]), self.float_weight(), self.float_bias())
        return rows.reshape(-1, *x.shape[1:-1], rows.shape[-1])


class ChannelAffine(nn.Module):
    """A BatchNorm that no layer before it can absorb: ``gain[c] * x + shift[c]`` in float, c along axis 1.

    Args:
        gain, shift: (C,).
        axes: behind the channels, as far as the graph tells, so that the file's constants keep their names.
    """

    gain: Tensor
    shift: Tensor

    def __init__(self, gain: Tensor, shift: Tensor, axes: int | None = None) -> None:
        super().__init__()
        shape = (-1, *[1] * (axes or 0))
        self.register_buffer("gain", gain.float().reshape(shape))
        self.register_buffer("shift", shift.float().reshape(shape))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C), (N, C, L) or (N, C, H, W) to the same."""
        return torch.add(torch.mul(x, along_channels(self.gain, x)), along_channels(self.shift, x))


def along_channels(values: Tensor, x: Tensor) -> Tensor:
    """``values`` of C channels shaped to broadcast along axis 1 of ``x`` (N, C, ...)."""
    return values if values.dim() == x.dim() - 1 else values.reshape(-1, *[1] * (x.dim() - 2))
