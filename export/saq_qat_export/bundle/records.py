"""What the manifest says of layers, tensors, sizes and the proof."""

from torch import Tensor, fx

from saq_qat.quant.deploy.integer_modules import IntegerLayer, Quantize
from saq_qat.quant.deploy.kernels import is_sum_of_codes, kernel_before
from saq_qat.quant.plan.plan import LayerPlan, Plan
from saq_qat.quant.trace import graph
from saq_qat.recipe.schema import Cpu, Deploy, TensorRt
from saq_qat_export.lint.pair_bound import IntegerProduct
from saq_qat_export.proof.codes import PAIR_COMPARISON
from saq_qat_export.proof.constant_channels import constant_count
from saq_qat_export.proof.prove import Proof
from saq_qat_export.proof.tensors import producers
from saq_qat_export.reference.deploy_view import tensor_name
from saq_qat_runtime.bundle.manifest import (
    ComparisonRecord,
    CpuRecord,
    DeployRecord,
    Gate,
    LayerRecord,
    ScaleSummary,
    Sizes,
    TensorRecord,
    TensorRtRecord,
    ThresholdsRecord,
)

__all__ = [
    "cpu_record",
    "deploy_record",
    "gate_record",
    "layer_records",
    "sizes_of",
    "tensor_records",
    "tensorrt_record",
]


def layer_records(plan: Plan, view: fx.GraphModule) -> tuple[LayerRecord, ...]:
    """One record per convolution or linear layer, in graph order."""
    return tuple(_layer_record(layer, plan, view) for layer in plan.layers)


def _layer_record(layer: LayerPlan, plan: Plan, view: fx.GraphModule) -> LayerRecord:
    module = view.get_submodule(layer.name)
    source = next((tensor for tensor in plan.tensors if tensor.name == layer.input), None)
    return LayerRecord(
        name=layer.name,
        op=layer.op,
        weight_bits=layer.bits,
        weight_grid=layer.grid.describe(),
        weight_scale=_summary(module.weight_scale) if isinstance(module, IntegerLayer) else None,
        input_bits=None if source is None else source.bits,
        input_grid=None if source is None else source.grid.describe(),
        integer=layer.integer,
        reason=layer.float_reason,
        constant_channels=constant_count(module) if isinstance(module, IntegerLayer) else 0,
    )


def _summary(scales: Tensor) -> ScaleSummary:
    return ScaleSummary(scales.numel(), float(scales.min()), float(scales.max()))


def tensor_records(view: fx.GraphModule) -> tuple[TensorRecord, ...]:
    """One record per code tensor, in graph order."""
    modules = ((node, graph.module_of(view, node)) for node in view.graph.nodes)
    kinds = producers(view)
    return tuple(
        _tensor_record(
            str(node.target),
            module,
            ties=kinds[tensor_name(str(node.target))] == "float"
            or is_sum_of_codes(view, kernel_before(view, node)[0]),
        )
        for node, module in modules
        if isinstance(module, Quantize)
    )


def _tensor_record(path: str, module: Quantize, *, ties: bool) -> TensorRecord:
    return TensorRecord(
        name=path.removeprefix("quantizers."),
        bits=module.bits,
        code_min=module.minimum + module.zero_point,
        code_max=module.maximum + module.zero_point,
        zero_point=module.zero_point,
        dtype=module.stored,
        scale=float(module.scale),
        code_tensor=tensor_name(path),
        signed=module.minimum < 0,
        offset=module.offset,
        ties=ties,
    )


def sizes_of(view: fx.GraphModule, file_bytes: dict[str, int]) -> Sizes:
    """Weights at their trained bits, biases and scales at 32; other parameters (a lone BatchNorm) at 32."""
    parameters, bits = 0, 0
    for module in view.modules():
        if isinstance(module, IntegerLayer):
            parameters += module.weight.numel() + module.bias.numel()
            bits += module.weight.numel() * module.bits + 32 * (
                module.bias.numel() + module.weight_scale.numel()
            )
        elif not list(module.children()) and not isinstance(module, Quantize):
            own = sum(t.numel() for t in (*module.parameters(), *module.buffers()))
            parameters, bits = parameters + own, bits + 32 * own
    return Sizes(parameters, 4 * parameters, bits, file_bytes)


def cpu_record(cpu: Cpu, over_bound: tuple[IntegerProduct, ...], proof: Proof | None) -> CpuRecord:
    """On which CPUs plain sessions give the trained codes, and what they give elsewhere.

    Args:
        cpu: as ``deploy.onnxruntime.cpu`` of the recipe.
        over_bound: integer products of the file for ONNX Runtime that exceed the pair bound.
        proof: which has counted the codes that this costs; without it nothing is said of their number.
    """
    names = tuple(product.name for product in over_bound)
    if not names:
        return CpuRecord(cpu, (), "the same codes on every CPU, in any session")
    comparisons = () if proof is None else proof.comparisons
    emulated = next((comparison for comparison in comparisons if comparison.name == PAIR_COMPARISON), None)
    counted = "" if emulated is None else f": {emulated.mismatches:,} of {emulated.compared:,} in the proof"
    return CpuRecord(
        cpu, names,
        f"plain sessions of ONNX Runtime on x86 CPUs without VNNI give other codes{counted}; "
        "Session gives the trained codes there too, more slowly",
    )  # fmt: skip  # one value a line is a page


def deploy_record(deploy: Deploy) -> DeployRecord:
    """What a machine where the network runs has to know of a recipe's section ``deploy``."""
    limits = deploy.thresholds
    return DeployRecord(
        ThresholdsRecord(limits.max_top1_drop, limits.max_flip_rate), tensorrt_record(deploy.tensorrt)
    )


def tensorrt_record(settings: TensorRt) -> TensorRtRecord:
    """What a machine that builds an engine has to know of a recipe's section ``deploy.tensorrt``."""
    return TensorRtRecord(
        settings.precision,
        (settings.batch.minimum, settings.batch.optimum, settings.batch.maximum),
        settings.workspace_mib,
        settings.optimization_level,
        settings.hardware_compatibility,
        settings.version_compatible,
    )


def gate_record(proof: Proof, *, allow_failed_gate: bool) -> Gate:
    """The verdict of every comparison, and whether the bundle was written in spite of it."""
    comparisons = tuple(
        ComparisonRecord(
            comparison.name,
            comparison.hard,
            comparison.passed,
            comparison.compared,
            comparison.mismatches,
            comparison.detail,
        )
        for comparison in proof.comparisons
    )
    return Gate(proof.passed, allow_failed_gate and not proof.passed, comparisons)
