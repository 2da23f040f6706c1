"""How a plan looks: its layers, tensors and products by block, and what each target runs as integers."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from saq_qat.cli.findings import listed
from saq_qat.report.blocks import Row, block_table

if TYPE_CHECKING:
    from saq_qat.quant.plan.plan import LayerPlan, Plan, TensorPlan

__all__ = ["plan_lines", "planned_integers", "unlearned_biases"]

_ROLES = {
    "image": "the network's input",
    "input": "read by a convolution or linear layer",
    "operand": "a factor of a product of two activations, as in attention",
    "residual": "written by a convolution or read by a sum, with quant.residual_bits",
    "pooled": "read by a global average, with quant.residual_bits",
}
_OFFSET = "codes start at a learned offset (beta), which deployment moves into the biases of their readers"
_ZERO = "code of 0, learned with the offset; codes count from it, because a reader pads with zeros"
_FLOAT_READERS = "float operations only"
_FLOAT_PRODUCTS = "float by deploy.tensorrt.attention"


def plan_lines(
    plan: "Plan", *, integer_attention: bool, fold: bool = True, width: int | None = None
) -> list[str]:
    """The plan as tables.

    Args:
        integer_attention: TensorRT multiplies codes in products of two activations.
        fold: show blocks with equal plans once.
        width: columns of the terminal; None leaves lines as long as they are.
    """
    layers = block_table(
        ("layer", "op", "weight", "codes", "input", "runs as"),
        [_layer(layer) for layer in plan.layers],
        left=range(6), fold=fold, width=width,
    )  # fmt: skip  # one value a line is a page
    tensors = block_table(
        ("tensor", "role", "quantizer", "codes", "read by"),
        [_tensor(tensor, _readers(tensor, plan)) for tensor in plan.tensors],
        left=range(5), fold=fold, width=width,
    )  # fmt: skip  # one value a line is a page
    products = block_table(
        ("product", "factors", "runs as"),
        list(_products(plan, integer_attention=integer_attention)),
        left=range(3), fold=fold, width=width,
    )  # fmt: skip  # one value a line is a page
    return [
        *_section("Weights", [*layers, *_normalised(plan)]),
        *_section("Activations", [*tensors, *_roles(plan)]),
        *(_section("Products of two activations", products) if plan.products else []),
    ]


def planned_integers(plan: "Plan", targets: Sequence[str], *, integer_attention: bool) -> list[str]:
    """For each target how many layers and products it will run on integers, and what it leaves out."""
    if not targets:
        return [f"{len(plan.layers)} quantized layers; no deployment target asks for integers."]
    from saq_qat.quant.plan.targets import TARGETS

    lines = []
    for target in targets:
        layers = sum(layer.integer_on(target) for layer in plan.layers)
        multiplies = TARGETS[target].products and (target != "tensorrt" or integer_attention)
        products = len(plan.products) if multiplies else 0
        total = len(plan.layers) + len(plan.products)
        line = f"planned as integer: {layers + products}/{total} for {target}"
        if plan.products:
            why = "" if multiplies else f", {_FLOAT_PRODUCTS}" if target == "tensorrt" else ", float there"
            line += f" ({layers}/{len(plan.layers)} convolutions and linear layers, "
            line += f"{products}/{len(plan.products)} products of two activations{why})"
        lines.append(line)
    return lines


def unlearned_biases(plan: "Plan", stages: Sequence[str]) -> str:
    """What to know of a recipe without a deploy stage; empty if it has one, or only 8-bit layers."""
    if "deploy" in stages or all(layer.bits == 8 for layer in plan.layers):
        return ""
    return (
        "no deploy stage: export rounds the biases to integers after training, which changes some answers "
        "of a low-bit network. A short {kind: deploy} at the end of train.stages lets training learn them."
    )


def _section(title: str, lines: list[str]) -> list[str]:
    return [title, *(f"  {line}" for line in lines), ""]


def _layer(layer: "LayerPlan") -> Row:
    runs = "integer" if layer.integer else f"float: {layer.float_reason}"
    return (
        layer.name,
        layer.op,
        f"{layer.bits}-bit {layer.kind}",
        layer.grid.describe(),
        layer.input or "float",
        runs,
    )


def _tensor(tensor: "TensorPlan", readers: str) -> Row:
    return tensor.name, tensor.role, f"{tensor.bits}-bit {tensor.kind}", tensor.describe(), readers


def _readers(tensor: "TensorPlan", plan: "Plan") -> str:
    narrowed = [other.name for other in plan.tensors if other.requantizes == tensor.name]
    return ", ".join([*tensor.consumers, *narrowed]) or _FLOAT_READERS


def _products(plan: "Plan", *, integer_attention: bool) -> Iterator[Row]:
    factors = defaultdict(list)
    for tensor in plan.tensors:
        for consumer in tensor.consumers:
            factors[consumer].append(tensor.name)
    for name in plan.products:
        runs = "integer" if integer_attention else f"integer; on tensorrt {_FLOAT_PRODUCTS}"
        yield name, ", ".join(factors[name]), runs


def _roles(plan: "Plan") -> list[str]:
    """What the roles in the table mean, an offset, and the code of zero."""
    used = {tensor.role for tensor in plan.tensors}
    meanings: list[tuple[str, str]] = [(role, meaning) for role, meaning in _ROLES.items() if role in used]
    if any(tensor.offset for tensor in plan.tensors):
        meanings.append(("offset", _OFFSET))
    if any(tensor.counts_from_zero for tensor in plan.tensors):
        meanings.append(("z", _ZERO))
    return ["", *(f"{word:8}  {meaning}" for word, meaning in meanings)]


def _normalised(plan: "Plan") -> list[str]:
    """Which weights are normalised before they are quantized."""
    normal = [layer.name for layer in plan.layers if layer.normalize]
    others = [layer.name for layer in plan.layers if not layer.normalize]
    rescaled = [layer.name for layer in plan.layers if layer.normalize and layer.rescale_std]
    if not normal:
        return []
    which = listed(normal) if len(normal) <= len(others) else f"all but {listed(others)}" if others else "all"
    lines = ["", f"weights normalised to mean 0 and deviation 1 before they are quantized: {which}"]
    return lines + (
        [f"their deviation multiplied back, as no BatchNorm follows: {listed(rescaled)}"] if rescaled else []
    )
