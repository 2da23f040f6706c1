"""What a bundle is compared with: the same network in float32, and quantized by ONNX Runtime's own tool."""

import copy
import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, fx, nn

from saq_qat.quant.network import calibrate
from saq_qat.quant.numerics.layers import QuantConv2d, QuantLayer
from saq_qat.quant.numerics.quantizer import Quantizer
from saq_qat.recipe.schema import Deploy
from saq_qat_export.graph.onnx_graph import INPUT, export_onnx

__all__ = ["float_form", "float_onnx", "static_int8_onnx"]

Batch = npt.NDArray[np.float32]


def float_form(network: fx.GraphModule, batches: Iterable[Tensor]) -> fx.GraphModule:
    """The network with every quantizer taken out, in evaluation mode; the original is left alone.

    Weights stay clipped at their clip level but are not rounded, activations are neither, and BatchNorm
    statistics are estimated again. As the network was never trained so, its accuracy is not that of a float
    training.

    Args:
        batches: float32 images (N, C, H, W) for the statistics.
    """
    network = copy.deepcopy(network)
    for node in list(network.graph.nodes):
        module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, Quantizer):
            node.replace_all_uses_with(node.all_input_nodes[0])
            network.graph.erase_node(node)
        elif isinstance(module, QuantLayer):
            network.set_submodule(str(node.target), _float_layer(module))
            node.args = node.args[:1]
    network.graph.eliminate_dead_code()
    network.set_submodule("quantizers", nn.ModuleDict())
    network.recompile()
    calibrate(network, batches)
    return network.eval()


@torch.no_grad()
def _float_layer(layer: QuantLayer) -> nn.Module:
    lower, upper = layer.weight_quantizer.clip_bounds()
    weight = layer.quantizer_input().clamp(lower, upper)
    if layer.rescale_std:
        weight = weight * layer.weight_deviation()
    if layer.channel_gain is not None:
        weight = weight * layer.channel_gain.reshape(-1, *[1] * (weight.dim() - 1))
    has_bias = layer.bias is not None
    module: nn.Conv2d | nn.Linear
    if isinstance(layer, QuantConv2d):
        out, inputs = weight.shape[0], weight.shape[1] * layer.groups
        module = nn.Conv2d(
            out_channels=out,
            in_channels=inputs,
            kernel_size=(weight.shape[2], weight.shape[3]),
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            groups=layer.groups,
            bias=has_bias,
        )
    else:
        module = nn.Linear(weight.shape[1], weight.shape[0], bias=has_bias)
    module.weight.copy_(weight)
    if layer.bias is not None and module.bias is not None:
        module.bias.copy_(layer.bias)
    return module


def float_onnx(network: fx.GraphModule, image_shape: tuple[int, int, int]) -> bytes:
    """A float network (C, H, W) as ONNX, exported as a bundle's graph is; BatchNorm is folded on the way."""
    return export_onnx(network, image_shape, Deploy(pack_weights=False)).content


def static_int8_onnx(model: bytes, batches: Iterable[Batch]) -> bytes:
    """A float model quantized after training by onnxruntime.quantization, as it advises for x86.

    QDQ, int8 weights per channel, uint8 activations, ranges by smallest and largest value.

    Args:
        batches: float32 images (N, C, H, W) to calibrate on.
    """
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with tempfile.TemporaryDirectory() as folder:
            source, prepared, quantized = (
                Path(folder) / f"{name}.onnx" for name in ("float", "prepared", "int8")
            )
            source.write_bytes(model)
            quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(quantized),
                _Calibration(batches),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            return quantized.read_bytes()
    finally:
        logger.setLevel(level)


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    """The batches in the form that onnxruntime.quantization asks for."""

    def __init__(self, batches: Iterable[Batch]) -> None:
        self._batches = iter(batches)

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}
