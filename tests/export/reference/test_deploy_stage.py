"""The network behind its deploy stage, in evaluation, gives the integer reference's codes: every one."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from saq_qat.quant.deploy.integer_modules import IntegerConv2d, Quantize
from saq_qat.quant.deploy.view import deploy_view, fold_batch_norm
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.recipe.schema import ActivationQuantizer, Deploy
from saq_qat_export.reference.deploy_view import run_reference, tensor_name
from tests.quant.exact import with_exact_scales
from tests.quant.networks import BranchAndConcat, Gated, NoNorm, Residual, images, policy, quantized


class FlattenedSum(nn.Module):
    """The codes of a residual sum are made behind a reshape."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4 * 8 * 8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        found: Tensor = self.head((self.branch(x) + x).relu().flatten(1))
        return found


def relu6_residual() -> nn.Module:
    return Residual(nn.ReLU6)


SAQ = ActivationQuantizer(bits=4)
SYMMETRIC = ActivationQuantizer(bits=4, kind="symmetric")
LSQ_PLUS = ActivationQuantizer(bits=4, kind="lsq", offset="signed")


class Hardswishes(nn.Module):
    """Inputs with an offset of a padded convolution, of one without padding and of a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.padded = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3, padding=1)
        self.norm, self.bare = nn.BatchNorm2d(8), nn.Conv2d(8, 6, 3)
        self.last, self.head = nn.Conv2d(6, 4, 2), nn.Linear(36, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.hardswish(self.norm(self.padded(nn.functional.hardswish(self.stem(x)))))
        found: Tensor = self.head(self.last(self.bare(x).relu()).flatten(1))
        return found


def stage_of(
    model: Callable[[], nn.Module], bits: int, *, short: bool, activation: ActivationQuantizer = SAQ
) -> fx.GraphModule:
    """With ``short`` scales, of few binary digits, many sums are ties."""
    activation = activation.model_copy(update={"bits": bits})
    stage = fold_batch_norm(quantized(model(), policy(bits, activation=activation))[0])
    return (with_exact_scales(stage).float() if short else stage).eval()


def codes_of(values: Tensor, quantizer: Quantizer) -> Tensor:
    offset = quantizer.offset()
    return (values if offset is None else values - offset) / quantizer.scale


def trained_codes(stage: fx.GraphModule, x: Tensor) -> dict[str, Tensor]:
    """Codes that every activation quantizer makes, by module path."""
    found: dict[str, Tensor] = {}

    def keep(name: str, quantizer: Quantizer) -> None:
        quantizer.register_forward_hook(lambda _, given, out: found.update({name: codes_of(out, quantizer)}))

    for name, module in stage.named_modules():
        if isinstance(module, Quantizer) and name.startswith("quantizers."):
            keep(name, module)
    with torch.no_grad():
        stage(x)
    return found


@pytest.mark.parametrize("activation", [SAQ, SYMMETRIC, LSQ_PLUS], ids=["saq", "symmetric", "lsq-offset"])
@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(
    "model", [Residual, relu6_residual, BranchAndConcat, Gated, NoNorm, FlattenedSum, Hardswishes]
)
def test_every_code_of_the_deploy_stage_is_that_of_the_integer_reference(
    model: Callable[[], nn.Module], bits: int, short: bool, activation: ActivationQuantizer
) -> None:
    stage = stage_of(model, bits, short=short, activation=activation)
    view = deploy_view(stage, Deploy())
    x = images(32)
    expected, found = run_reference(view, x.numpy()).codes, trained_codes(copy.deepcopy(stage), x)
    for name, codes in found.items():
        quantize = view.get_submodule(name)
        assert isinstance(quantize, Quantize)
        stored = codes.round().clamp(quantize.minimum, quantize.maximum).numpy() + quantize.zero_point
        differ = int((stored != expected[tensor_name(name)]).sum())
        assert differ == 0, f"{name}: {differ} of {stored.size}"
    assert len(found) >= 3


@pytest.mark.parametrize("relu", [nn.ReLU, nn.Identity])
def test_ties_of_a_residual_sum_fall_as_they_fall_in_the_kernel(relu: type[nn.Module]) -> None:
    stage = stage_of(lambda: Residual(relu), 4, short=False)
    sums = [node for node in stage.graph.nodes if len(node.args) == 2 and isinstance(node.args[1], tuple)]
    assert sums, "no quantizer knows the terms of its sum"
    for node in sums:
        _, ((_, _), handles, _) = node.args
        quantizer = stage.get_submodule(str(node.target))
        terms = [stage.get_submodule(str(handle.target)) for handle in handles]
        with torch.no_grad():
            for each, scale in zip((*terms, quantizer), (0.125, 0.375, 0.25), strict=True):
                assert isinstance(each, Quantizer)
                each.alpha.fill_(scale * each.grid.unit)
    view = deploy_view(stage, Deploy())
    x = images(32)
    reference = run_reference(view, x.numpy()).codes
    found = trained_codes(stage, x)
    for node in sums:
        name = str(node.target)
        quantize = view.get_submodule(name)
        assert isinstance(quantize, Quantize)
        codes = found[name].round().clamp(quantize.minimum, quantize.maximum).numpy() + quantize.zero_point
        assert np.array_equal(codes, reference[tensor_name(name)])


class Average(nn.Module):
    """Means of 7 by 7 codes, of which 49 no binary number is a fraction."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 2), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.conv(x).relu().mean((2, 3)))
        return found


def test_ties_of_a_mean_over_height_and_width_fall_as_they_fall_in_the_kernel() -> None:
    stage = stage_of(Average, 4, short=False)
    (node,) = (node for node in stage.graph.nodes if len(node.args) == 3 and node.args[1] is None)
    name, handle = str(node.target), node.args[2][1]
    quantizer, of_values = stage.get_submodule(name), stage.get_submodule(str(handle.target))
    assert isinstance(quantizer, Quantizer) and isinstance(of_values, Quantizer)
    with torch.no_grad():  # every odd sum of codes is a tie of its mean
        quantizer.alpha.copy_(of_values.scale * 2 / 49 * quantizer.grid.unit)
    view, x = deploy_view(stage, Deploy()), images(256)
    quantize = view.get_submodule(name)
    assert isinstance(quantize, Quantize)
    codes = trained_codes(stage, x)[name].round().clamp(quantize.minimum, quantize.maximum).numpy()
    assert np.unique(codes).size > 20
    expected = run_reference(view, x.numpy()).codes[tensor_name(name)]
    assert np.array_equal(codes + quantize.zero_point, expected.reshape(codes.shape))


def test_ties_of_sums_of_inputs_with_an_offset_fall_as_they_fall_in_the_kernel() -> None:
    stage = stage_of(Hardswishes, 8, short=False, activation=LSQ_PLUS)
    (node,) = (node for node in stage.graph.nodes if node.target == "bare")
    before, reader = (stage.get_submodule(str(handle.target)) for handle in node.args[1:])
    assert isinstance(before, Quantizer) and before.offset() is not None and isinstance(reader, Quantizer)
    bare = deploy_view(stage, Deploy()).get_submodule("bare")
    assert isinstance(bare, IntegerConv2d) and bare.bias_scale is not None
    with torch.no_grad():  # one sum in 46 is a tie
        reader.alpha.copy_(bare.bias_scale[0] * 46 * reader.grid.unit)
    view, x = deploy_view(stage, Deploy()), images(512)
    name = next(name for name, module in stage.named_modules() if module is reader)
    quantize = view.get_submodule(name)
    assert isinstance(quantize, Quantize)
    codes = trained_codes(stage, x)[name].round().clamp(quantize.minimum, quantize.maximum).numpy()
    assert np.unique(codes).size > 20
    assert np.array_equal(
        codes + quantize.zero_point, run_reference(view, x.numpy()).codes[tensor_name(name)]
    )
