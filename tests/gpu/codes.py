"""Part (b): a GPU's integers against the NumPy reference, and its fake-quant codes against a CPU's."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from saq_qat.quant.deploy.integer_modules import IntegerConv2d, IntegerLayer, Quantize
from saq_qat.quant.deploy.kernels import quantizer_behind
from saq_qat.quant.deploy.view import deploy_view
from saq_qat.quant.network import calibrate
from saq_qat.quant.numerics.functional import codes, scale_of
from saq_qat.quant.numerics.grid import Grid
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.recipe.schema import Deploy
from saq_qat_export.reference import integer_math as reference
from tests.gpu.networks import quantized
from tests.gpu.options import Options
from tests.gpu.results import machine, write_part

__all__ = ["fake_quant_codes", "integer_products", "run_codes_part"]

_ALIGNED = 8
"""Depth and width of cuBLAS's int8 products are multiples of it."""

_FEWEST_ROWS = 32


def run_codes_part(options: Options) -> None:
    """Both comparisons at 2, 4 and 8 bits; writes codes.json. Differences are results, not failures."""
    device, images, values = (
        options.device,
        (4 if options.rehearse else 64),
        (4096 if options.rehearse else 2**20),
    )
    found = {}
    for bits in (2,) if options.rehearse else (2, 4, 8):
        network = quantized(bits, options.weights)
        pictures = torch.randn(images, 3, 32, 32, generator=torch.Generator().manual_seed(bits))
        calibrate(network, [pictures])
        products = integer_products(deploy_view(network, Deploy()), pictures, device)
        forms: dict[str, _Codes] = (
            {"eager": _eager} if options.rehearse else {"eager": _eager, "compiled": _Compiled()}
        )
        quantizers = {name: fake_quant_codes(network, values, device, form) for name, form in forms.items()}
        found[f"W{bits}A{bits}"] = {"products": products, "fake_quant": quantizers}
        print(f"W{bits}A{bits}: {_summary(products, quantizers)}", flush=True)
    write_part(options.output, "codes", {"machine": machine(device), "networks": found}, complete=True)


def _summary(products: list[dict[str, Any]], quantizers: dict[str, list[dict[str, Any]]]) -> str:
    parts = [
        f"{sum(p['different_sums'] for p in products)} of {sum(p['sums'] for p in products):,} sums and "
        f"{sum(p['different_codes'] for p in products)} codes differ"
    ]
    for name, rows in quantizers.items():
        different = sum(row["different_codes"] for row in rows)
        parts.append(f"{name}: {different} of {sum(row['values'] for row in rows):,} fake-quant codes differ")
    return "; ".join(parts)


@torch.no_grad()
def integer_products(view: fx.GraphModule, pictures: Tensor, device: torch.device) -> list[dict[str, Any]]:
    """Every layer of a deploy view on the codes that reach it: sums and requantized codes that differ.

    Both ends start from the same codes of images (N, 3, H, W); the GPU multiplies int8 matrices.
    """
    found = []
    for name, node, layer, x in _inputs(view, pictures):
        assert layer.bias_scale is not None  # layers without codes at their input are left out
        scale = (layer.bias_scale / layer.weight_scale)[0]
        own = torch.round(x.double() / scale.double()).to(torch.int32)
        expected = _reference_sums(layer, own)
        sums = _device_sums(layer, own, device)
        row = {
            "layer": name,
            "sums": expected.size,
            "different_sums": int((sums.cpu() != torch.from_numpy(expected)).sum()),
            "largest_code": int(own.abs().max()),
            "codes": 0,
            "different_codes": 0,
        }
        behind = quantizer_behind(view, node)
        quantize = None if behind is None else view.get_submodule(str(behind.target))
        if isinstance(quantize, Quantize):
            row |= _requantized(layer, quantize, expected, sums)
        found.append(row)
    return found


def _inputs(view: fx.GraphModule, pictures: Tensor) -> Iterator[tuple[str, fx.Node, IntegerLayer, Tensor]]:
    """Name, node, layer and dequantized input of every layer on codes, in the graph's order."""
    seen: dict[str, Tensor] = {}

    def remember(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _module, arguments: seen.__setitem__(name, arguments[0].detach())

    layers = {
        name: m
        for name, m in view.named_modules()
        if isinstance(m, IntegerLayer) and m.bias_scale is not None
    }
    handles = [layer.register_forward_pre_hook(remember(name)) for name, layer in layers.items()]
    view(pictures)
    for handle in handles:
        handle.remove()
    nodes = {str(node.target): node for node in view.graph.nodes if node.op == "call_module"}
    for name, layer in layers.items():
        yield name, nodes[name], layer, seen[name]


def _reference_sums(layer: IntegerLayer, own: Tensor) -> reference.Codes:
    x, weight, bias = own.numpy(), layer.weight.numpy(), layer.bias.to(torch.int32).numpy()
    if isinstance(layer, IntegerConv2d):
        window = reference.Window(layer.stride, layer.padding, layer.dilation, layer.groups)
        return reference.accumulate_conv(x, weight, bias, window)
    return reference.accumulate_linear(x, weight, bias)


def _device_sums(layer: IntegerLayer, own: Tensor, device: torch.device) -> Tensor:
    """int32 sums of int8 matrices on the device, of the reference's shape; a convolution by its patches."""
    x, weight = own.to(device, torch.int8), layer.weight.to(device).flatten(1)
    bias = layer.bias.to(device, torch.int32)
    if not isinstance(layer, IntegerConv2d):
        return _int8_product(x, weight) + bias
    if layer.groups != 1:
        raise ValueError("only convolutions of one group are multiplied as one matrix")
    patches = F.unfold(x.float(), layer.weight.shape[2:], layer.dilation, layer.padding, layer.stride).to(
        torch.int8
    )
    images, depth, places = patches.shape
    sums = _int8_product(patches.transpose(1, 2).reshape(images * places, depth), weight) + bias
    height = (
        own.shape[2] + 2 * layer.padding[0] - layer.dilation[0] * (layer.weight.shape[2] - 1) - 1
    ) // layer.stride[0] + 1
    return sums.view(images, places, -1).transpose(1, 2).reshape(images, -1, height, places // height)


def _int8_product(x: Tensor, weight: Tensor) -> Tensor:
    """(rows, out) int32 of int8 (rows, depth) and (out, depth), padded to sizes that cuBLAS takes."""
    rows, (out, depth) = len(x), weight.shape
    deeper, wider = -depth % _ALIGNED, -out % _ALIGNED
    x = F.pad(x, (0, deeper, 0, max(0, _FEWEST_ROWS - rows)))
    weight = F.pad(weight, (0, deeper, 0, wider))
    return torch._int_mm(x.contiguous(), weight.contiguous().t())[:rows, :out]


def _requantized(
    layer: IntegerLayer, quantize: Quantize, expected: reference.Codes, sums: Tensor
) -> dict[str, int]:
    """Codes of the reference's sums against those that the device makes of its own, by the same formula."""
    assert layer.bias_scale is not None  # it reads codes
    shape = [1, -1] + [1] * (expected.ndim - 2)
    grid = layer.bias_scale.numpy().reshape(shape)
    scale = np.float32(quantize.scale.item())
    limits = reference.CodeRange(quantize.minimum, quantize.maximum)
    theirs = reference.requantize_accumulator(expected, grid, scale, limits)
    device = sums.device
    multiplier = torch.from_numpy(grid).to(device) / quantize.scale.to(device)
    own = torch.round(sums.float() * multiplier).clamp(quantize.minimum, quantize.maximum).to(torch.int32)
    return {"codes": theirs.size, "different_codes": int((own.cpu() != torch.from_numpy(theirs)).sum())}


_Codes = Callable[[Tensor, Tensor, Grid], Tensor]


def _eager(x: Tensor, alpha: Tensor, grid: Grid) -> Tensor:
    return codes(x, scale_of(alpha, grid.unit), grid)


class _Compiled:
    """The same function as ``Objective`` compiles it, a program for each grid."""

    def __init__(self) -> None:
        torch.compiler.reset()
        self._programs: dict[Grid, Callable[[Tensor, Tensor], Tensor]] = {}

    def __call__(self, x: Tensor, alpha: Tensor, grid: Grid) -> Tensor:
        if grid not in self._programs:
            self._programs[grid] = torch.compile(
                lambda values, level: _eager(values, level, grid),
                fullgraph=True,
                dynamic=False,
                options={"eager_numerics.division_rounding": True},
            )
        return self._programs[grid](x, alpha)


@torch.no_grad()
def fake_quant_codes(
    network: fx.GraphModule, values: int, device: torch.device, form: _Codes
) -> list[dict[str, Any]]:
    """Codes of every quantizer on the device against the CPU's of the same floats, ties included."""
    found = []
    for place, (name, quantizer) in enumerate(_quantizers(network)):
        x, alpha = _difficult(quantizer, values, place), quantizer.alpha.detach()
        own = form(x.to(device), alpha.to(device), quantizer.grid)
        found.append(
            {
                "quantizer": name,
                "values": values,
                "different_codes": int((own.cpu() != quantizer.codes(x)).sum()),
                "same_scale": torch.equal(
                    scale_of(alpha.to(device), quantizer.grid.unit).cpu(), quantizer.scale
                ),
            }
        )
    return found


def _quantizers(network: fx.GraphModule) -> Iterator[tuple[str, Quantizer]]:
    yield from ((name, m) for name, m in network.named_modules() if isinstance(m, Quantizer))


def _difficult(quantizer: Quantizer, count: int, seed: int) -> Tensor:
    """A third are random, a third ties between codes, and the rest floats beside those."""
    generator = torch.Generator().manual_seed(seed)
    grid, scale = quantizer.grid, quantizer.scale
    third = count // 3
    reach = scale * max(abs(grid.minimum), grid.maximum) * 1.5
    random = torch.randn(count - 2 * third, generator=generator) * reach
    steps = torch.randint(grid.minimum - 2, grid.maximum + 3, (third,), generator=generator).float()
    ties = (steps + grid.step / 2) * scale
    outward = torch.where(torch.rand(third, generator=generator) < 0.5, -torch.inf, torch.inf)
    return torch.cat([random, ties, torch.nextafter(ties, outward)])
