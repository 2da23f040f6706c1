"""The rules of TensorRT over our own graphs: that of a checkpoint, and the one a recipe plans."""

import onnx
import torch
from torch import nn

from saq_qat.quant.deploy.view import deploy_view
from saq_qat.quant.network import calibrate, quantize
from saq_qat.quant.plan.plan import Finding
from saq_qat.recipe.schema import Quant, Recipe, TensorRt
from saq_qat_export.graph.onnx_graph import OnnxGraph, export_tensorrt
from saq_qat_export.lint import LintSettings, batch_profiles, lint

__all__ = ["lint_graph", "lint_planned"]

_CHANNELS = 3


def lint_graph(graph: OnnxGraph, settings: TensorRt) -> tuple[Finding, ...]:
    """Hold a graph for TensorRT against the rules, with the batch sizes its engine will get."""
    model = onnx.load_from_string(graph.content)
    batch = settings.batch
    profiles = batch_profiles(model, batch.minimum, batch.optimum, batch.maximum)
    return lint(model, LintSettings(profiles=profiles, narrow_weights=True))


def lint_planned(model: nn.Module, recipe: Recipe, quant: Quant) -> tuple[Finding, ...]:
    """Hold the graph that ``model`` would be deployed as against the rules, before it is trained.

    The graph has untrained weights and scales of two random images: right in all but numbers.

    Raises:
        LegalityError: a target cannot run the plan.
    """
    size = recipe.data.image_size
    images = torch.randn(2, _CHANNELS, size, size, generator=torch.Generator().manual_seed(0))
    deploy = recipe.deploy
    network, _ = quantize(model, quant, deploy.targets, cpu=deploy.onnxruntime.cpu)
    calibrate(network, [images])
    view = deploy_view(network.eval(), recipe.deploy)
    settings = recipe.deploy.tensorrt
    return lint_graph(export_tensorrt(view, (_CHANNELS, size, size), settings), settings)
