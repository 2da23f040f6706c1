"""Networks planned for OpenVINO, and their graphs for it."""

from functools import cache

import torch
from torch import nn

from saq_qat.models.build import build_model
from saq_qat.recipe.schema import Deploy, Model, Quant
from saq_qat_export.graph.onnx_graph import OnnxGraph, export_graph
from tests.export.networks import CLASSES, SIDE, Lowered, Small, lower, policy, smooth_images

__all__ = [
    "OPENVINO",
    "built_in_for_openvino",
    "lowered_for_openvino",
    "openvino_graph",
    "small_for_openvino",
]

OPENVINO = ("openvino",)


@cache
def small_for_openvino(bits: int = 4, targets: tuple[str, ...] = OPENVINO) -> Lowered:
    """``Small`` on 16 images of 16 x 16 pixels."""
    return lowered_for_openvino(Small(), bits, SIDE, targets)


@cache
def built_in_for_openvino(name: str, bits: int, side: int, targets: tuple[str, ...] = OPENVINO) -> Lowered:
    """A built-in network on 16 smooth images."""
    torch.manual_seed(0)
    return lowered_for_openvino(build_model(Model(name=name), CLASSES), bits, side, targets)


def lowered_for_openvino(
    model: nn.Module, bits: int, side: int, targets: tuple[str, ...] = OPENVINO, quant: Quant | None = None
) -> Lowered:
    """A network on 16 smooth images, with ``quant`` in place of ``bits`` where it is given."""
    torch.manual_seed(0)
    return lower(model, quant or policy(bits, bits), smooth_images(16, side), targets=targets)


@cache
def openvino_graph(found: Lowered, side: int) -> OnnxGraph:
    """For OpenVINO, of images with three channels."""
    return export_graph(found.view, (3, side, side), "openvino", Deploy())
