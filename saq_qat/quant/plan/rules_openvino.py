"""Rules of target ``openvino`` over a plan: what its CPU plugin turns into integer kernels, and keeps exact.

It moves the quantizers it finds. What the rules refuse, it was seen to run with other codes.
"""

from collections.abc import Iterator

from torch import fx

from saq_qat.quant.numerics.grid import INT16_MAX, exceeds_pair_bound
from saq_qat.quant.plan.float_operations import float_operations
from saq_qat.quant.plan.plan import Finding, LayerPlan, Plan, TensorPlan
from saq_qat.quant.trace import graph
from saq_qat.quant.trace.groups import groups
from saq_qat.recipe.schema import Cpu

__all__ = ["findings", "float_reason"]


def float_reason(layer: LayerPlan) -> str:
    """Why OpenVINO would run a layer in float; empty if it runs on integers."""
    return "its input is not quantized" if layer.input is None else ""


def findings(plan: Plan, network: fx.GraphModule, _cpu: Cpu) -> list[Finding]:
    """What the rules say of a plan, in its order."""
    tensors = {tensor.name: tensor for tensor in plan.tensors}
    return [
        *(finding for tensor in plan.tensors for finding in _tensor_findings(tensor)),
        *(finding for layer in plan.layers for finding in _layer_findings(layer, tensors)),
        *_sum_findings(plan, network),
        *_network_findings(plan, network),
    ]


def _tensor_findings(tensor: TensorPlan) -> Iterator[Finding]:
    if not tensor.fits_uint8:
        yield Finding(
            "OV002", "error", tensor.name,
            f"codes {tensor.grid.describe()} do not fit 8 bits.",
            "Use fewer bits.",
        )  # fmt: skip  # one value a line is a page


def _layer_findings(layer: LayerPlan, tensors: dict[str, TensorPlan]) -> Iterator[Finding]:
    if not layer.fits_int8:
        yield Finding(
            "OV003", "error", layer.name,
            f"weight codes {layer.grid.describe()} do not fit int8 with either sign, and a BatchNorm of "
            "negative gain flips signs.",
            "Set quant.grid: deploy, or train without deployment (deploy.targets: []).",
        )  # fmt: skip  # one value a line is a page
    if layer.input is None:
        yield Finding(
            "OV004", "warning", layer.name,
            f"runs as a float kernel: {float_reason(layer)}.",
            "Set quant.quantize_image: true for integer kernels throughout.",
        )  # fmt: skip  # one value a line is a page
        return
    largest = tensors[layer.input].grid.largest_stored
    weight = max(-layer.grid.minimum, layer.grid.maximum)
    if layer.fits_int8 and exceeds_pair_bound(largest, weight):
        yield Finding(
            "OV005", "error", layer.name,
            f"2 * {largest} * {weight} (largest stored input, largest weight code) exceeds {INT16_MAX}: on "
            "x86 CPUs without VNNI OpenVINO adds such products in saturating int16 and gives other codes.",
            "Set quant.grid: deploy, or give this layer fewer weight bits by an override.",
        )  # fmt: skip  # one value a line is a page


def _sum_findings(plan: Plan, network: fx.GraphModule) -> Iterator[Finding]:
    """OV001: a sum runs with a convolution that hands it a term, whose quantizer is lost.

    Where another convolution hands it floats, the sum runs with that one, and all codes stay.
    """
    convolved = {
        group.output: group
        for group in groups(network)
        if group.activation is None and graph.is_convolution(network, group.head)
    }
    for node in network.graph.nodes:
        if graph.is_add(network, node):
            terms = [t for t in node.all_input_nodes if graph.value_of(network, t) in convolved]
            codes = {t.after: t.name for t in plan.tensors if node.name in t.consumers}
            quantized = [codes[term.name] for term in terms if term.name in codes]
            if terms and len(quantized) == len(terms):
                yield _lost_quantizer(node.name, quantized)


def _lost_quantizer(where: str, quantizers: list[str]) -> Finding:
    return Finding(
        "OV001", "error", where,
        f"adds codes of a convolution ({', '.join(quantizers)}): OpenVINO runs both as one kernel without "
        "the rounding in between, so that its codes are others than the trained ones.",
        "Deploy for OpenVINO and not for ONNX Runtime (deploy.targets), or quantize the inputs of layers "
        "alone (quant.placement: paper).",
    )  # fmt: skip  # one value a line is a page


def _network_findings(plan: Plan, network: fx.GraphModule) -> Iterator[Finding]:
    operations = float_operations(plan, network)
    if operations:
        counts = ", ".join(f"{count} {kind}" for kind, count in operations.items())
        yield Finding(
            "OV007", "note", "network",
            f"{operations.total()} operations stay float between codes: {counts}. For OpenVINO "
            "integers are for convolutions and linear layers.",
        )  # fmt: skip  # one value a line is a page
