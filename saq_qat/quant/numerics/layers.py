"""Convolution and linear layers with a quantized weight and a place to perturb it."""

import copy
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saq_qat.errors import LegalityError
from saq_qat.quant.numerics.bias import in_codes_of_bias, offset_in_bias, round_to_integer, round_to_step
from saq_qat.quant.numerics.kernel_rounding import rounded_as_sums
from saq_qat.quant.numerics.normalise import mean_and_deviation
from saq_qat.quant.numerics.quantizer import Quantizer

__all__ = ["QuantConv2d", "QuantLayer", "QuantLinear", "quant_layers"]


class QuantLayer(nn.Module):
    """Base of the layers whose weight is quantized; computes with ``Q(v) + slot``.

    ``v`` is the weight, or the weight minus its mean divided by its deviation over the whole tensor (APoT;
    statistics carry no gradient). The slot and the shift are how sharpness-aware training perturbs a layer
    without moving its weight.

    Attributes:
        weight, bias: the full-precision parameters.
        slot: plain leaf tensor of the weight's shape added to Q(v), or None; its gradient is dL/dQ(v).
            Neither parameter nor buffer: it is never saved, and distributed training leaves each process its
            own. Both passes of a step have it, at first zero, so that they are one program for a compiler.
        slot_apart: the slot, without a gradient, goes through a product of its own, so that autocast rounds
            it by itself: added to Q(v) it would be lost in the steps of bfloat16.
        shift: plain tensor added before quantization (Case 2), or None.
        shift_space: ``normalised`` adds the shift to v; ``raw`` adds it to the weight, whose statistics are
            taken anew.
        channel_gain: buffer (out,) in the deploy stage: gain of the BatchNorm folded into this layer; else
            None.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None
    channel_gain: Tensor | None

    def __init__(
        self,
        layer: nn.Conv2d | nn.Linear,
        weight_quantizer: Quantizer,
        *,
        normalize: bool = False,
        rescale_std: bool = False,
    ) -> None:
        super().__init__()
        self.weight = cast(nn.Parameter, layer.weight)
        self.bias = cast(nn.Parameter | None, layer.bias)
        self.weight_quantizer = weight_quantizer
        self.normalize = normalize
        self.rescale_std = rescale_std
        self.slot: Tensor | None = None
        self.slot_apart = False
        self.shift: Tensor | None = None
        self.shift_space: Literal["normalised", "raw"] = "normalised"
        self.refinement = 1
        self._trained: tuple[Tensor, Tensor] | None = None
        self.register_buffer("channel_gain", None)

    @property
    def folded(self) -> bool:
        """Whether a BatchNorm was folded into this layer (deploy stage)."""
        return self.channel_gain is not None

    def fold(self, gain: Tensor, bias: Tensor, refinement: int) -> None:
        """Enter the deploy stage: multiply channels by ``gain``, learn ``bias`` on its grid; both (out,)."""
        self.channel_gain = gain.to(self.weight.detach())
        self.bias = nn.Parameter(bias.detach().to(self.weight))
        self.refinement = refinement

    def another_use(self) -> "QuantLayer":
        """This layer at another place: the same parameters and weight quantizer, until either is folded."""
        other = copy.copy(self)
        for held in ("_parameters", "_buffers", "_modules"):
            vars(other)[held] = dict(vars(self)[held])
        return other

    def integer_bias(self, input_scale: Tensor | None, offset: Tensor | None = None) -> Tensor | None:
        """The bias, in the deploy stage rounded straight-through to the integer that is deployed.

        Args:
            offset: 0-dim, of the input. The deployed bias holds it times the sum of the weights, which counts
                in rounding and is taken off again; perturbed weights change nothing here.
        """
        if self.channel_gain is None or self.bias is None or input_scale is None:
            return self.bias
        if offset is None:
            scale, _ = self.channel_scales(self.channel_gain, self.refinement)
            return round_to_step(self.bias, input_scale * scale)
        codes, scale = self.stored(self.channel_gain, self.refinement)
        held = offset_in_bias(offset.detach(), codes, scale)
        rounded = round_to_step(self.bias.detach().double() + held, input_scale * scale) - held
        return self.bias + (rounded - self.bias.double()).detach().to(self.bias.dtype)

    @property
    def pads(self) -> bool:
        """Whether the input is surrounded by zeros, so that the outputs at its edge sum fewer products."""
        return False

    def forward(
        self, x: Tensor, input_quantizer: Quantizer | None = None, reader: Quantizer | None = None
    ) -> Tensor:
        """(N, in, H, W) to (N, out, H', W') for a convolution, (..., in) to (..., out) for a linear layer.

        Padding is code 0: what is padded has no offset, which with all weights goes to the bias.

        Args:
            input_quantizer: says what zero padding is, where the input has an offset, and places the integer
                bias in the deploy stage.
            reader: the quantizer whose codes the layer's kernel writes, in the deploy stage.
        """
        bias: Tensor | None = self.bias
        if input_quantizer is not None:
            offset = input_quantizer.offset(x.numel())
            if self.channel_gain is not None and not self.training and self.slot is None:
                return self._scaled_sums(x, input_quantizer.scale, offset, self.channel_gain, reader)
            bias = self.integer_bias(input_quantizer.scale, offset)
            if offset is not None and self.pads:
                held = offset * self.quantized_weight().flatten(1).sum(1)
                x, bias = x - offset, held if bias is None else bias + held
        if self.slot is None or not self.slot_apart:
            return self.compute(x, self.quantized_weight(), bias)
        product = self.compute(x, self._scaled(self.projected_weight()), bias)
        return product.float() + self.compute(x, self._scaled(self.slot.detach()), None).float()

    def _scaled_sums(
        self, x: Tensor, input_scale: Tensor, offset: Tensor | None, gain: Tensor, reader: Quantizer | None
    ) -> Tensor:
        """The deploy stage in evaluation: codes are summed, and the sums scaled once, as integer kernels do.

        Float32 holds the sums exactly below 2^24, in whichever order they are added; not where a library
        transforms codes first (Winograd's algorithm, on GPUs). Sums of values would differ from them in their
        last bits, and one that many outputs have may lie so near to a tie of the next quantizer that it would
        get another code than in deployment. In training it need not, and the input may lie beside its grid
        (dropout); perturbed weights are deployed nowhere.
        """
        scale, _ = self.channel_scales(gain, self.refinement)
        code = (scale * self.refinement).reshape(-1, *[1] * (self.weight.dim() - 1))
        weight = round_to_integer(self._scaled(self.projected_weight()) / code)
        exact: Tensor | None = self.bias
        if offset is not None:
            x = x - offset
            held = offset_in_bias(offset, weight, scale.double() * self.refinement)
            exact = held if exact is None else exact.double() + held
        step = input_scale * scale
        bias = None if exact is None else in_codes_of_bias(exact, step).to(scale) / self.refinement
        sums = self.compute(round_to_integer(x / input_scale), weight, bias)
        unit = (step * self.refinement).reshape(-1, *[1] * (self.weight.dim() - 2))
        scaled = sums * unit
        if reader is None or scaled.dtype != torch.float32:
            return scaled
        return rounded_as_sums(scaled, sums, unit / reader.scale, reader.scale)

    def compute(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The layer itself, on any weight of its shape."""
        raise NotImplementedError

    @torch.no_grad()
    def stored(self, gain: Tensor, refinement: int) -> tuple[Tensor, Tensor]:
        """Weight codes as deployment stores them, and the value of one: floats of the weight's shape, (out,).

        Refined, with the sign of ``gain``, zeros in dead channels; arguments as of ``channel_scales``.
        """
        scale, alive = self.channel_scales(gain, refinement)
        sign = torch.where(alive, gain.sign(), torch.zeros_like(gain))
        return self.weight_codes() * (refinement * sign).reshape(-1, *[1] * (self.weight.dim() - 1)), scale

    @torch.no_grad()
    def channel_scales(self, gain: Tensor, refinement: int) -> tuple[Tensor, Tensor]:
        """Value of one stored code of each channel, (out,) of the weight's dtype, and which channels are
        alive.

        A channel whose scale underflows is dead: it stores zeros, so any scale does, and it gets the layer's.

        Args:
            gain: (out,), of the BatchNorm that follows; its sign moves into the codes.
            refinement: what stored codes are multiplied by.
        """
        scale = self.weight_scale()
        folded = (scale.double() * gain.double().abs()).to(scale.dtype) / refinement
        alive = folded > torch.finfo(torch.float32).tiny
        return torch.where(alive, folded, scale / refinement), alive

    def open_slot(self) -> Tensor:
        """Add a zero slot, whose gradient is dL/dQ(v), and return it."""
        self.slot = torch.zeros_like(self.weight, requires_grad=True)
        return self.slot

    def open_shift(self, space: Literal["normalised", "raw"]) -> Tensor:
        """Add a zero shift in ``space``, and return it."""
        self.shift, self.shift_space = torch.zeros_like(self.weight.detach()), space
        return self.shift

    def close(self) -> None:
        """Leave neither slot nor shift."""
        self.slot, self.slot_apart, self.shift = None, False, None

    def weight_deviation(self) -> Tensor:
        """sigma of the normalisation, 0-dim, unbiased; 1 without normalisation and for a constant weight."""
        return self.weight_statistics()[1]

    def weight_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the normalisation, 0-dim; 0 and 1 without it."""
        weight = self.weight.detach()
        if not self.normalize:
            return weight.new_zeros(()), weight.new_ones(())
        if self._trained is not None:
            return self._trained
        return mean_and_deviation(weight)

    def set_statistics(self, mean: float, deviation: float) -> None:
        """Use these for the weight as it is, instead of taking them anew; a shifted weight still has its own.

        For a network that is not trained on: they are those of the weight it was saved with.
        """
        self._trained = self.weight.new_tensor(mean), self.weight.new_tensor(deviation)

    def quantizer_input(self) -> Tensor:
        """v, of the weight's shape, without any shift."""
        return self._normalised(self.weight)

    def clip_mask(self) -> Tensor:
        """Bool tensor M of the weight's shape: G_v = G_Q * M (paper Eq. 10)."""
        return self.weight_quantizer.clip_mask(self.quantizer_input().detach())

    def quantized_weight(self) -> Tensor:
        """Q(v) + slot, times sigma if ``rescale_std``, times the gain of a folded BatchNorm."""
        quantized = self.projected_weight()
        return self._scaled(quantized if self.slot is None else quantized + self.slot)

    def projected_weight(self) -> Tensor:
        """Q(v), or Q(v + shift): the weight's shape, on the grid, before any scaling."""
        weight: Tensor = self.weight
        if self.shift is not None and self.shift_space == "raw":
            weight = weight + self.shift
        v = self._normalised(weight)
        if self.shift is not None and self.shift_space == "normalised":
            v = v + self.shift
        return cast(Tensor, self.weight_quantizer(v))

    def _scaled(self, quantized: Tensor) -> Tensor:
        if self.rescale_std:
            quantized = quantized * self.weight_deviation()
        if self.channel_gain is not None:
            quantized = quantized * self.channel_gain.reshape(-1, *[1] * (quantized.dim() - 1))
        return quantized

    @torch.no_grad()
    def weight_codes(self) -> Tensor:
        """Integer codes of the weight, as floats of its shape."""
        return self.weight_quantizer.codes(self.quantizer_input())

    @torch.no_grad()
    def weight_scale(self) -> Tensor:
        """Value of one code, 0-dim, sigma included where it is multiplied back."""
        scale = self.weight_quantizer.scale
        return scale * self.weight_deviation() if self.rescale_std else scale

    def _normalised(self, weight: Tensor) -> Tensor:
        if not self.normalize:
            return weight
        trained = self._trained if weight is self.weight else None
        mean, deviation = trained or mean_and_deviation(weight)
        return (weight - mean).div_(deviation)


class QuantConv2d(QuantLayer):
    """2-D convolution with a quantized weight (out, in / groups, kH, kW), padded with zeros."""

    def __init__(
        self,
        conv: nn.Conv2d,
        weight_quantizer: Quantizer,
        *,
        normalize: bool = False,
        rescale_std: bool = False,
    ) -> None:
        if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
            raise LegalityError(
                f"Quantized convolutions pad with a number of zeros; got padding={conv.padding!r}, "
                f"padding_mode={conv.padding_mode!r}. "
                "Give padding as numbers, or put nn.ZeroPad2d or nn.ReflectionPad2d before the convolution."
            )
        super().__init__(conv, weight_quantizer, normalize=normalize, rescale_std=rescale_std)
        self.stride = cast(tuple[int, int], conv.stride)
        self.padding = cast(tuple[int, int], conv.padding)
        self.dilation = cast(tuple[int, int], conv.dilation)
        self.groups = conv.groups

    @property
    def pads(self) -> bool:
        return any(self.padding)

    def compute(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)


class QuantLinear(QuantLayer):
    """Linear layer with a quantized weight (out, in)."""

    def compute(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)


def quant_layers(network: nn.Module, *, every_use: bool = False) -> dict[str, QuantLayer]:
    """Name and layer of every quantized weight, in registration order.

    Args:
        every_use: by every path of a layer that is used more than once, and not by its first alone.
    """
    modules = network.named_modules(remove_duplicate=not every_use)
    return {name: module for name, module in modules if isinstance(module, QuantLayer)}
