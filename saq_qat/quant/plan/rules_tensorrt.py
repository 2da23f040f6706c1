"""Rules of target ``tensorrt`` over a plan: explicit quantization knows int8 with zero point 0, and no more.

The ids are those of the rules over graphs (``saq-qat check model.onnx``), which see what a plan cannot.
"""

from collections.abc import Iterator

from torch import fx

from saq_qat.quant.plan.plan import Finding, LayerPlan, Plan, TensorPlan
from saq_qat.recipe.schema import Cpu

__all__ = ["findings", "float_reason"]

_NO_DEPLOYMENT = "or deploy elsewhere (deploy.targets)."


def float_reason(layer: LayerPlan) -> str:
    """Why TensorRT would run a layer in float; empty if it runs as int8."""
    return "its input is not quantized" if layer.input is None else ""


def findings(plan: Plan, _network: fx.GraphModule, _cpu: Cpu) -> list[Finding]:
    """What the rules say of a plan, in its order."""
    return [
        *(finding for tensor in plan.tensors for finding in _tensor_findings(tensor)),
        *(finding for layer in plan.layers for finding in _layer_findings(layer)),
    ]


def _tensor_findings(tensor: TensorPlan) -> Iterator[Finding]:
    if not tensor.fits_int8:
        yield Finding(
            "TRT002", "error", tensor.name,
            f"codes {tensor.grid.describe()} do not fit int8 with zero point 0.",
            f"Use kind saq or at most 7 bits here and quant.grid: deploy, {_NO_DEPLOYMENT}",
        )  # fmt: skip  # one value a line is a page


def _layer_findings(layer: LayerPlan) -> Iterator[Finding]:
    if not layer.fits_int8:
        yield Finding(
            "TRT020", "error", layer.name,
            f"weight codes {layer.grid.describe()} do not fit int8 with either sign, and a BatchNorm of "
            "negative gain flips signs.",
            f"Set quant.grid: deploy, {_NO_DEPLOYMENT}",
        )  # fmt: skip  # one value a line is a page
    if not layer.integer_on("tensorrt"):
        yield Finding(
            "TRT009", "warning", layer.name,
            f"runs in float: {float_reason(layer)}, so its weights are written as floats.",
            "Set quant.quantize_image: true, or accept a float layer.",
        )  # fmt: skip  # one value a line is a page
