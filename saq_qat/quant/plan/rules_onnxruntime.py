"""Rules of target ``onnxruntime`` over a plan: what its CPU provider turns into integer kernels.

The rest of the graph it runs in float.
"""

from collections.abc import Iterator

from torch import fx

from saq_qat.quant.numerics.grid import INT16_MAX, exceeds_pair_bound
from saq_qat.quant.plan.float_operations import WHY_FLOAT, float_operations
from saq_qat.quant.plan.plan import Finding, LayerPlan, Plan, TensorPlan
from saq_qat.recipe.schema import Cpu

__all__ = ["findings", "float_reason"]


def float_reason(layer: LayerPlan) -> str:
    """Why ONNX Runtime would run a layer in float; empty if it runs on integers."""
    if layer.input is None:
        return "its input is not quantized"
    if layer.op == "conv" and layer.output is None:
        return "its output is not quantized"
    return ""


def findings(plan: Plan, network: fx.GraphModule, cpu: Cpu) -> list[Finding]:
    """What the rules say of a plan, in its order."""
    tensors = {tensor.name: tensor for tensor in plan.tensors}
    return [
        *(finding for tensor in plan.tensors for finding in _tensor_findings(tensor)),
        *(finding for layer in plan.layers for finding in _layer_findings(layer, tensors, cpu)),
        *_network_findings(plan, network),
    ]


def _tensor_findings(tensor: TensorPlan) -> Iterator[Finding]:
    if not tensor.fits_uint8:
        yield Finding(
            "ORT002",
            "error",
            tensor.name,
            f"codes {tensor.grid.describe()} do not fit 8 bits.",
            "Use fewer bits.",
        )


def _layer_findings(layer: LayerPlan, tensors: dict[str, TensorPlan], cpu: Cpu) -> Iterator[Finding]:
    if not layer.fits_int8:
        yield Finding(
            "ORT003", "error", layer.name,
            f"weight codes {layer.grid.describe()} do not fit int8 with either sign, and a BatchNorm of "
            "negative gain flips signs; rounding them would ship other integers.",
            "Set quant.grid: deploy, or train without deployment (deploy.targets: []).",
        )  # fmt: skip  # one value a line is a page
    if not layer.integer_on("onnxruntime"):
        yield Finding(
            "ORT004", "warning", layer.name,
            f"runs as a float kernel: {float_reason(layer)}.",
            "Set quant.placement: deploy and quant.quantize_image: true for integer kernels throughout.",
        )  # fmt: skip  # one value a line is a page
        return
    yield from _pair_findings(layer, tensors[str(layer.input)], cpu)


def _pair_findings(layer: LayerPlan, source: TensorPlan, cpu: Cpu) -> Iterator[Finding]:
    """ORT005: an error, but for a recipe for CPUs with VNNI alone."""
    largest, weight = source.grid.largest_stored, max(-layer.grid.minimum, layer.grid.maximum)
    if not layer.fits_int8 or not exceeds_pair_bound(largest, weight):
        return
    broken = f"2 * {largest} * {weight} (largest stored input, largest weight code) exceeds {INT16_MAX}: x86 "
    broken += "CPUs without VNNI add pairs of products in saturating int16 and give other codes"
    if cpu == "any":
        yield Finding(
            "ORT005", "error", layer.name, f"{broken}.",
            "Set quant.grid: deploy, give this layer fewer weight bits by an override, or deploy on CPUs "
            "with VNNI alone (deploy.onnxruntime.cpu: vnni).",
        )  # fmt: skip  # one value a line is a page
    else:
        yield Finding(
            "ORT005", "warning", layer.name,
            f"{broken} in plain sessions; Session asks the engine for exact kernels, slower ones.",
            "Set deploy.onnxruntime.cpu: any for the same codes everywhere.",
        )  # fmt: skip  # one value a line is a page


def _network_findings(plan: Plan, network: fx.GraphModule) -> Iterator[Finding]:
    if any(layer.bits < 8 for layer in plan.layers):
        yield Finding(
            "ORT006",
            "note",
            "network",
            "weights below 8 bits save storage; the kernels compute in int8 at int8 speed.",
        )
    operations = float_operations(plan, network)
    if operations:
        counts = ", ".join(f"{count} {kind}" for kind, count in operations.items())
        yield Finding(
            "ORT007", "note", "network",
            f"{operations.total()} operations stay float between codes: {counts}. {WHY_FLOAT}",
        )  # fmt: skip  # one value a line is a page
