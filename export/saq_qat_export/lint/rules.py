"""The table of rules: what TensorRT must, should and may find in a graph.

Rules 001 to 020 decide whether a graph builds and runs as integers; 101 to 117 whether it is fast. They
follow the documentation and headers of TensorRT 10 and 11, the source of its ONNX parser, and builds with
TensorRT-RTX.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from saq_qat_export.lint.checks import codes, operators, placement, scales, size, speed, weights
from saq_qat_export.lint.settings import LintSettings
from saq_qat_export.lint.view import GraphView, Level, Violation

__all__ = ["RULES", "Check", "Rule"]

Check = Callable[[GraphView, LintSettings], Iterator[Violation]]


@dataclass(frozen=True)
class Rule:
    """One rule. ``level`` is that of its findings, but for cases that the docstring of ``check`` names."""

    id: str
    level: Level
    title: str
    check: Check


RULES: tuple[Rule, ...] = (
    Rule(
        "TRT001", "error", "The operator set is 9 to 24 and knows the quantization in use.", operators.opset
    ),
    Rule("TRT002", "error", "Codes are int8, int4, float8 or float4; never uint8.", codes.code_type),
    Rule("TRT003", "error", "Zero points are constant, all 0 and of the codes' type.", codes.zero_point),
    Rule("TRT004", "error", "Scales are constants.", scales.constant_scale),
    Rule("TRT005", "error", "Scales are finite, positive and not denormal.", scales.usable_scale),
    Rule("TRT006", "error", "Activation scales have no dimension.", scales.one_number),
    Rule("TRT007", "error", "Per-channel scales belong to constants.", scales.per_channel_weights_only),
    Rule("TRT008", "error", "Weight scales lie along the output channels.", weights.channel_axis),
    Rule("TRT009", "error", "Data and weights are both quantized, or neither.", weights.both_inputs),
    Rule(
        "TRT010",
        "error",
        "Only layout changes stand between dequantized weights and layer.",
        weights.plain_weights,
    ),
    Rule("TRT011", "error", "Biases are float constants of the layer's type.", weights.float_bias),
    Rule("TRT012", "error", "No operator computes on integers itself.", operators.integer_operators),
    Rule(
        "TRT013",
        "error",
        "Nothing stands between QuantizeLinear and DequantizeLinear.",
        codes.nothing_between,
    ),
    Rule("TRT014", "error", "int4 is for weights of products alone, in blocks.", codes.four_bit),
    Rule("TRT015", "error", "Quantized data has a dimension.", codes.scalar_data),
    Rule("TRT016", "error", "Channels of quantized convolutions are static.", weights.static_channels),
    Rule("TRT017", "error", "Dynamic inputs have a profile that fits.", size.profiles),
    Rule("TRT018", "error", "Scales have the float type around them, without casts.", scales.one_precision),
    Rule(
        "TRT019",
        "error",
        "Types, names and operators are known to the parser.",
        operators.interface_and_operators,
    ),
    Rule("TRT020", "error", "Weight codes keep the recipe's range.", codes.narrow_weights),
    Rule("TRT101", "warning", "What is added to a convolution is quantized.", placement.residual_input),
    Rule("TRT102", "warning", "Quantized outputs do not also go to a sum in float.", placement.float_branch),
    Rule("TRT103", "warning", "No pair stands between Pad and convolution.", placement.pad_meets_conv),
    Rule("TRT104", "warning", "Codes are not dequantized only to be quantized again.", placement.double_pair),
    Rule("TRT105", "warning", "Both sides of a pair have the same scale.", scales.same_scale),
    Rule("TRT106", "warning", "One tensor is quantized with one scale.", scales.several_scales),
    Rule("TRT107", "warning", "Inputs of a Concat share a scale.", placement.concat_scales),
    Rule("TRT108", "warning", "Pools and sums of codes are quantized again.", placement.integer_output),
    Rule("TRT109", "warning", "Quantized layers are large enough for int8 to pay.", speed.small_layers),
    Rule("TRT110", "warning", "No kinds of layers whose int8 kernels are slow or missing.", speed.slow_kinds),
    Rule("TRT111", "warning", "Attention is not quantized inside.", speed.attention),
    Rule(
        "TRT112",
        "warning",
        "BatchNormalization is folded, activations precede codes.",
        placement.batch_norm_folded,
    ),
    Rule("TRT113", "warning", "Clip and LeakyRelu precede the codes.", placement.activation_before_codes),
    Rule("TRT114", "warning", "What is not quantized is float16.", speed.float32_between),
    Rule("TRT115", "note", "Sums fit int32.", speed.accumulator),
    Rule("TRT116", "note", "Images of up to four channels are padded to four.", speed.few_channels),
    Rule("TRT117", "warning", "Large models are parsed from their path.", size.large_file),
)
