"""Which operators TensorRT's ONNX parser reads, and which of them leave codes at their scale.

The supported list follows the parser's own table for TensorRT 11.1 (onnx-tensorrt, docs/operators.md). Names
stand several to a line, unformatted: one a line would be pages of them.
"""

from saq_qat_runtime.operators import BOUNDS, EFFECTS

__all__ = [
    "ACTIVATIONS",
    "CODE_MOVERS",
    "INTEGER_OPERATORS",
    "MOVERS",
    "PLUGIN_DOMAINS",
    "QUANTIZATION_DOMAINS",
    "STANDARD_DOMAINS",
    "SUPPORTED",
]

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
QUANTIZATION_DOMAINS = STANDARD_DOMAINS | {"com.microsoft"}
PLUGIN_DOMAINS = frozenset({"trt", "trt.plugins", "TRT"})

# Outputs hold only numbers of the input or the padding, so that DequantizeLinear may stand on either side; of
# Resize, only where its mode says so (nodes.moves).
MOVERS = frozenset(EFFECTS) - BOUNDS

# What TensorRT also computes on int8 without changing its scale.
CODE_MOVERS = frozenset(EFFECTS)

ACTIVATIONS = frozenset({
    "Celu", "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu", "Selu",
    "Sigmoid", "Softplus", "Softsign", "Swish", "Tanh", "ThresholdedRelu",
})  # fmt: skip  # one value a line is a page

# Operators of ONNX and ONNX Runtime that compute on integers themselves; the rest begin with "QLinear".
INTEGER_OPERATORS = frozenset({
    "ConvInteger", "DynamicQuantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulInteger",
    "MatMulInteger16", "MatMulIntegerToFloat", "QAttention", "QEmbedLayerNormalization", "QGemm", "QMoE",
})  # fmt: skip  # one value a line is a page

SUPPORTED = frozenset({
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "Attention",
    "AveragePool", "BatchNormalization", "BlackmanWindow", "Cast", "CastLike", "Ceil", "Celu", "Clip",
    "Concat", "Constant", "ConstantOfShape", "Conv", "ConvTranspose", "Cos", "Cosh", "CumSum", "DeformConv",
    "DepthToSpace", "DequantizeLinear", "Div", "Dropout", "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand",
    "EyeLike", "Flatten", "Floor", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm",
    "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample",
    "GroupNormalization", "GRU", "HammingWindow", "HannWindow", "HardSigmoid", "HardSwish", "Hardmax",
    "Identity", "If", "ImageScaler", "InstanceNormalization", "IsInf", "IsNaN", "LayerNormalization",
    "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax", "Loop", "LRN", "LSTM", "LpNormalization",
    "LpPool", "MatMul", "Max", "MaxPool", "Mean", "MeanVarianceNormalization", "Min", "Mish", "Mod", "Mul",
    "Neg", "NonMaxSuppression", "NonZero", "Not", "OneHot", "Or", "Pad", "ParametricSoftplus", "Pow",
    "PRelu", "QuantizeLinear", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
    "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax",
    "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Resize",
    "ReverseSequence", "RMSNormalization", "RNN", "RoiAlign", "RotaryEmbedding", "Round", "STFT",
    "ScaledTanh", "Scan", "Scatter", "ScatterElements", "ScatterND", "Selu", "Shape", "Shrink", "Sigmoid",
    "Sign", "Sin", "Sinh", "Size", "Slice", "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split",
    "Sqrt", "Squeeze", "Sub", "Sum", "Swish", "Tan", "Tanh", "TensorScatter", "ThresholdedRelu", "Tile",
    "TopK", "Transpose", "Trilu", "Unsqueeze", "Upsample", "Where", "Xor",
})  # fmt: skip  # one value a line is a page
