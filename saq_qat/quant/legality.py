"""What the targets can run: rules over a plan, checked before any GPU hour is spent.

Each rule has an id, a level and a remedy. ``ORT`` rules come from the operator patterns that ONNX Runtime's
CPU provider turns into integer kernels; the rest of the graph it runs in float.
"""

from collections.abc import Iterator
from dataclasses import replace

from torch import fx

from saq_qat.quant import graph
from saq_qat.quant.grid import INT16_MAX
from saq_qat.quant.groups import groups
from saq_qat.quant.plan import Finding, LayerPlan, Plan, TensorPlan

__all__ = ["judge"]

_FLOAT_OPERATIONS_SHOWN = 8


def judge(plan: Plan, network: fx.GraphModule, targets: tuple[str, ...]) -> Plan:
    """The plan with, per layer, why it would stay float, and with every finding of the targets' rules."""
    if "onnxruntime" not in targets:
        return plan
    tensors = {tensor.name: tensor for tensor in plan.tensors}
    layers = tuple(replace(layer, float_reason=_float_reason(layer)) for layer in plan.layers)
    findings = [
        *(finding for tensor in plan.tensors for finding in _tensor_findings(tensor)),
        *(finding for layer in layers for finding in _layer_findings(layer, tensors)),
        *_network_findings(layers, network),
    ]
    return Plan(plan.tensors, layers, tuple(findings))


def _float_reason(layer: LayerPlan) -> str:
    if layer.input is None:
        return "its input is not quantized"
    if layer.op == "conv" and layer.output is None:
        return "its output is not quantized"
    return ""


def _tensor_findings(tensor: TensorPlan) -> Iterator[Finding]:
    if tensor.offset:
        yield Finding(
            "ORT001", "error", tensor.name,
            "codes with a learned offset cannot be lowered: zero padding and biases would have to absorb it.",
            "Use kind saq, symmetric or lsq here, or train without deployment (deploy.targets: []).",
        )  # fmt: skip
    if not tensor.fits_uint8:
        yield Finding(
            "ORT002",
            "error",
            tensor.name,
            f"codes {tensor.grid.describe()} do not fit 8 bits.",
            "Use fewer bits.",
        )


def _layer_findings(layer: LayerPlan, tensors: dict[str, TensorPlan]) -> Iterator[Finding]:
    if not layer.fits_int8:
        yield Finding(
            "ORT003", "error", layer.name,
            f"weight codes {layer.grid.describe()} do not fit int8 with either sign, and a BatchNorm of "
            "negative gain flips signs; rounding them would ship other integers.",
            "Set quant.grid: deploy, or train without deployment (deploy.targets: []).",
        )  # fmt: skip
    if layer.float_reason:
        yield Finding(
            "ORT004", "warning", layer.name,
            f"runs as a float kernel: {layer.float_reason}.",
            "Set quant.placement: deploy and quant.quantize_image: true for integer kernels throughout.",
        )  # fmt: skip
        return
    largest = tensors[str(layer.input)].grid.largest_stored
    if 2 * largest * layer.grid.maximum > INT16_MAX:
        yield Finding(
            "ORT005", "warning", layer.name,
            f"2 * {largest} * {layer.grid.maximum} exceeds {INT16_MAX}: x86 CPUs without VNNI may saturate "
            "and give other codes.",
            "Deploy on CPUs with VNNI, or give this layer 6-bit weights by an override.",
        )  # fmt: skip


def _network_findings(layers: tuple[LayerPlan, ...], network: fx.GraphModule) -> Iterator[Finding]:
    if any(layer.bits < 8 for layer in layers):
        yield Finding(
            "ORT006",
            "note",
            "network",
            "weights below 8 bits save storage; the kernels compute in int8 at int8 speed.",
        )
    names = _float_operations(network)
    if names:
        more = " ..." if len(names) > _FLOAT_OPERATIONS_SHOWN else ""
        shown = ", ".join(names[:_FLOAT_OPERATIONS_SHOWN]) + more
        yield Finding(
            "ORT007", "note", "network", f"{len(names)} operations stay float between codes: {shown}."
        )


def _float_operations(network: fx.GraphModule) -> list[str]:
    known = (graph.is_weighted, graph.is_add, graph.is_global_average, graph.is_carrier)
    return [
        group.head.name
        for group in groups(network)
        if group.head.op not in ("placeholder", "get_attr")
        and not any(test(network, group.head) for test in known)
    ]
