"""Mutants above the deploy view: lowering understood another network than the one that was trained."""

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, fx, nn

from saq_qat.quant.deploy import factors, fold, integer_modules, lowering
from saq_qat.quant.deploy.fold import FoldedLayer
from saq_qat.quant.deploy.view import deploy_view
from saq_qat.quant.numerics import functional
from saq_qat.quant.numerics.layers import QuantLayer
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat_export.proof import lowered as lowered_module
from tests.gate.harness import Mutant, Place

__all__ = ["MUTANTS"]

Network = fx.GraphModule
Patch = pytest.MonkeyPatch


def half_up(patch: Patch) -> None:
    """``floor(x + 1/2)`` in training, where the files round half to even."""
    steps = functional._steps

    def rounding_up(x: Tensor, scale: Tensor, grid: Any, offset: Any, zero: Any = None) -> Tensor:
        if grid.step != 1 or zero is not None:
            return steps(x, scale, grid, offset, zero)
        quotient = x.div(scale) if offset is None else x.sub(offset).div(scale)
        return quotient.add(0.5).floor().clamp_(grid.minimum, grid.maximum)

    patch.setattr(functional, "_steps", rounding_up)


def with_affine(
    change: Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]],
) -> Callable[[Patch], None]:
    """What folding takes for gain and shift of a BatchNorm."""
    affine = fold.batch_norm_affine

    def patched(patch: Patch) -> None:
        patch.setattr(fold, "batch_norm_affine", lambda norm: change(norm, *affine(norm)))

    return patched


def without_epsilon(norm: Any, gain: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    bare = norm.weight.detach().double() / norm.running_var.double().sqrt()
    return bare, norm.bias.detach().double() - norm.running_mean.double() * bare


def without_mean(norm: Any, gain: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    return gain, norm.bias.detach().double()


def next_channel(norm: Any, gain: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    return gain.roll(1), shift


def deviation_squared(norm: Any, gain: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    return gain / (norm.running_var.double() + norm.eps).sqrt(), shift


def shift_of_next_channel(norm: Any, gain: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    return gain, shift.roll(1)


def gain_along_inputs(patch: Patch) -> None:
    """BatchNorm folded along the axis of the inputs, where a weight has as many."""
    folding = fold.fold_layer

    def wrong(layer: QuantLayer, norm: Any, factor: int) -> FoldedLayer:
        folded = folding(layer, norm, factor)
        out, inputs = folded.codes.shape[:2]
        if norm is None or out != inputs:
            return folded
        relative = folded.scale / folded.scale.mean()
        rows = folded.codes.float() * relative.reshape(1, -1, *[1] * (folded.codes.dim() - 2))
        codes = rows.round().clamp(-127, 127).to(torch.int8)
        return FoldedLayer(codes, folded.scale.mean().expand(out).clone(), folded.bias)

    patch.setattr(lowering, "fold_layer", wrong)


def sign_of_gain_forgotten(patch: Patch) -> None:
    stored = QuantLayer.stored

    def wrong(self: QuantLayer, gain: Tensor, refinement: int) -> tuple[Tensor, Tensor]:
        return stored(self, gain.abs(), refinement)

    patch.setattr(QuantLayer, "stored", wrong)


def refinement_in_codes_alone(patch: Patch) -> None:
    stored = QuantLayer.stored

    def wrong(self: QuantLayer, gain: Tensor, refinement: int) -> tuple[Tensor, Tensor]:
        codes, scale = stored(self, gain, refinement)
        return codes, scale * refinement

    patch.setattr(QuantLayer, "stored", wrong)


def refinement_in_scale_twice(patch: Patch) -> None:
    stored = QuantLayer.stored

    def wrong(self: QuantLayer, gain: Tensor, refinement: int) -> tuple[Tensor, Tensor]:
        codes, scale = stored(self, gain, refinement)
        return codes, scale / refinement

    patch.setattr(QuantLayer, "stored", wrong)


def weight_mean_kept(patch: Patch) -> None:
    """The normalisation of weights forgets to take their mean off."""

    def wrong(self: QuantLayer, weight: Tensor) -> Tensor:
        return weight / (weight - weight.mean()).std() if self.normalize else weight

    _while_lowering(patch, QuantLayer, "_normalised", wrong)


def deviation_of_each_channel(patch: Patch) -> None:
    """The normalisation of weights divides each output channel by its own deviation."""

    def wrong(self: QuantLayer, weight: Tensor) -> Tensor:
        if not self.normalize:
            return weight
        centred = weight - weight.mean()
        rows = centred.flatten(1)
        return (rows / rows.std(1, keepdim=True)).reshape(weight.shape)

    _while_lowering(patch, QuantLayer, "_normalised", wrong)


def absolute_clip_levels(patch: Patch) -> None:
    """Lowering takes 1.0001 of every clip level of an activation."""
    scale_of = functional.scale_of

    def wrong(self: Quantizer) -> Tensor:
        return scale_of(self._in_use().alpha, self.grid.unit) * 1.0001

    _while_lowering(patch, Quantizer, "scale", property(wrong))


def _while_lowering(patch: Patch, owner: Any, name: str, wrong: Any) -> None:
    """A function that training calls too is wrong in lowering only."""
    lower = deploy_view

    def lowering_wrongly(*arguments: Any, **settings: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(owner, name, wrong)
            return lower(*arguments, **settings)

    patch.setattr(lowered_module, "deploy_view", lowering_wrongly)


def offset_dropped(patch: Patch) -> None:
    patch.setattr(lowering, "absorb_offset", lambda folded, offset: folded)


def offset_negated(patch: Patch) -> None:
    absorb = fold.absorb_offset
    patch.setattr(lowering, "absorb_offset", lambda folded, offset: absorb(folded, -offset))


def offset_twice(patch: Patch) -> None:
    absorb = fold.absorb_offset
    patch.setattr(lowering, "absorb_offset", lambda folded, offset: absorb(absorb(folded, offset), offset))


def offset_of_first_weights(patch: Patch) -> None:
    """The sum over the first input channel in place of all weights."""
    absorb = fold.absorb_offset

    def wrong(folded: FoldedLayer, offset: Tensor) -> FoldedLayer:
        held = absorb(FoldedLayer(folded.codes[:, :1], folded.scale, folded.bias), offset)
        return FoldedLayer(folded.codes, folded.scale, held.bias)

    patch.setattr(lowering, "absorb_offset", wrong)


def raw_offset_behind_padding(patch: Patch) -> None:
    """Where codes count from zero, lowering takes beta itself and not the value of zero's code."""
    offset = Quantizer.offset

    def wrong(self: Quantizer, elements: int = 1) -> Tensor | None:
        return self.beta if self.counts_from_zero else offset(self, elements)

    _while_lowering(patch, Quantizer, "offset", wrong)


def bias_rounded_down(patch: Patch) -> None:
    _with_bias_codes(patch, lambda exact: exact.floor())


def bias_rounded_to_zero(patch: Patch) -> None:
    _with_bias_codes(patch, lambda exact: exact.trunc())


def bias_saturated(patch: Patch) -> None:
    """Biases held in 8 bits."""
    _with_bias_codes(patch, lambda exact: exact.round().clamp(-128, 127))


def _with_bias_codes(patch: Patch, rounded: Callable[[Tensor], Tensor]) -> None:
    def wrong(folded: FoldedLayer, input_scale: Tensor) -> tuple[FoldedLayer, Tensor]:
        step = fold.bias_scale(input_scale, folded.scale).double()
        return folded, rounded(folded.bias.double() / step).to(torch.int32)

    patch.setattr(integer_modules, "bias_codes", wrong)


def factor_dropped(patch: Patch) -> None:
    """Attention's scale taken out of the graph, and into no layer."""
    patch.setattr(factors, "_multiply", lambda layer, factor: None)


def factor_twice(patch: Patch) -> None:
    multiply = factors._multiply

    def wrong(layer: Any, factor: float) -> None:
        multiply(layer, factor)
        multiply(layer, factor)

    patch.setattr(factors, "_multiply", wrong)


def factor_in_weights_alone(patch: Patch) -> None:
    patch.setattr(factors, "_multiply", lambda layer, factor: layer.weight_scale.mul_(factor))


# ---- the fake-quant network is another one than lowering took it for


def epsilon(path: str) -> Callable[[Network], None]:
    return lambda network: setattr(network.get_submodule(path), "eps", 0.01)


def activation_before_norm(network: Network) -> None:
    """Trained as convolution, ReLU, BatchNorm; deployed as convolution, BatchNorm, ReLU."""
    nodes = {node.name: node for node in network.graph.nodes}
    conv, norm, relu = nodes["branch_0_0"], nodes["branch_0_1"], nodes["branch_0_2"]
    norm.replace_all_uses_with(conv)
    relu.replace_all_uses_with(norm)
    norm.args = (relu,)
    relu.append(norm)


def module_replaced(path: str, module: nn.Module) -> Callable[[Network], None]:
    return lambda network: network.set_submodule(path, module)


def setting(path: str, **values: Any) -> Callable[[Network], None]:
    def change(network: Network) -> None:
        for name, value in values.items():
            setattr(network.get_submodule(path), name, value)

    return change


def grouped_backwards(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The second group of inputs read by the first group of outputs."""
    halves = torch.cat([x[:, 6:], x[:, :6]], dim=1)
    return nn.functional.conv2d(halves, weight, bias, 1, 2, 2, 2)


def tokens_moved(network: Network) -> None:
    """Trained with another order of the positions."""
    position = cast(Tensor, network.get_parameter("position"))
    position.data = position.data.roll(1, dims=1)


_TRAINING: tuple[tuple[str, str, Callable[[Network], None], str], ...] = (
    ("epsilon of a BatchNorm", "cnn", epsilon("branch.0.1"), r"branch"),
    ("order of BatchNorm and activation", "cnn", activation_before_norm, r"branch.0"),
    ("max pool trained as average pool", "cnn", module_replaced("pool", nn.AvgPool2d(2)), r"branch|shortcut"),
    ("ReLU trained as an absolute value", "cnn", module_replaced("mix.2", nn.LeakyReLU(-1.0)), r"mix"),
    (
        "ReLU6 trained as ReLU with a cap at 0.5",
        "cnn",
        module_replaced("depthwise.2", nn.Hardtanh(0.0, 0.5)),
        r"depthwise",
    ),
    ("dilation", "cnn", setting("branch.1", dilation=(1, 1), padding=(1, 1)), r"branch\.1"),
    ("groups", "cnn", setting("branch.1", groups=2, compute=grouped_backwards), r"branch\.1"),
    ("epsilon of a LayerNorm", "vit", epsilon("norm2"), r"norm2"),
    ("GELU trained with its tanh formula", "vit", module_replaced("act", nn.GELU("tanh")), r"act"),
    ("positions moved by one token", "vit", tokens_moved, r"norm1|position"),
    ("Hardswish trained as SiLU", "offsets", module_replaced("expand.2", nn.SiLU()), r"expand"),
)

_ARITHMETIC: tuple[tuple[str, str, Callable[[Patch], None], str], ...] = (
    ("half-up rounding in training", "cnn", half_up, r"image"),
    ("BatchNorm without epsilon", "cnn", with_affine(without_epsilon), r"stem\.0|stem_2"),
    ("BatchNorm without its mean", "cnn", with_affine(without_mean), r"stem\.0|stem_2"),
    ("BatchNorm of the next channel: gain", "cnn", with_affine(next_channel), r"stem\.0|stem_2"),
    ("BatchNorm of the next channel: shift", "cnn", with_affine(shift_of_next_channel), r"stem\.0|stem_2"),
    ("BatchNorm divides by the variance", "cnn", with_affine(deviation_squared), r"stem\.0|stem_2"),
    ("BatchNorm folded along the inputs", "cnn", gain_along_inputs, r"mix"),
    ("sign of a BatchNorm's gain forgotten", "cnn", sign_of_gain_forgotten, r"stem\.0|stem_2"),
    ("refinement in codes alone", "cnn", refinement_in_codes_alone, r"branch"),
    ("refinement in the scale twice", "cnn", refinement_in_scale_twice, r"branch"),
    ("mean of normalised weights kept", "cnn", weight_mean_kept, r"stem\.0|branch"),
    ("normalised weights divided channel by channel", "cnn", deviation_of_each_channel, r"branch|stem"),
    ("scales of activations times 1.0001", "cnn", absolute_clip_levels, r"image"),
    ("biases rounded down", "cnn", bias_rounded_down, r"stem\.0"),
    ("biases rounded towards zero", "cnn", bias_rounded_to_zero, r"stem\.0"),
    ("biases saturated at 8 bits", "cnn", bias_saturated, r"stem\.0"),
    ("offset dropped from biases", "offsets", offset_dropped, r"reduce|spread|expand"),
    ("sign of an offset", "offsets", offset_negated, r"reduce|spread|expand"),
    ("offset absorbed twice", "offsets", offset_twice, r"reduce|spread|expand"),
    ("offset times the first input's weights", "offsets", offset_of_first_weights, r"reduce|expand"),
    (
        "offset behind padding not that of zero",
        "offsets",
        raw_offset_behind_padding,
        r"spread\.0|stem_2_4bit",
    ),
    ("offset dropped behind a GELU", "vit", offset_dropped, r"fc2"),
    ("sign of the offset behind a GELU", "vit", offset_negated, r"fc2"),
    ("attention's scale dropped", "vit", factor_dropped, r"\bq\b|mul"),
    ("attention's scale applied twice", "vit", factor_twice, r"\bq\b|mul"),
    ("attention's scale in weights, not in biases", "vit", factor_in_weights_alone, r"\bq\b|mul"),
    ("scales of activations times 1.0001, transformer", "vit", absolute_clip_levels, r"image"),
    ("biases rounded down, transformer", "vit", bias_rounded_down, r"fc1|patches|\bq\b"),
)


def _mutants(place: Place, rows: Any) -> tuple[Mutant, ...]:
    return tuple(Mutant(name, network, place, change, named) for name, network, change, named in rows)


MUTANTS = (*_mutants("training", _TRAINING), *_mutants("arithmetic", _ARITHMETIC))
