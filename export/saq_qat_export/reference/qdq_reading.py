"""What a QuantizeLinear/DequantizeLinear graph was found to compute."""

from dataclasses import dataclass

import numpy as np

from saq_qat_export.reference.integer_math import CodeRange, Codes, Float32
from saq_qat_export.reference.qdq_layers import IntegerOperands

__all__ = ["QdqReading", "QuantizedTensor"]


@dataclass(frozen=True)
class QuantizedTensor:
    """The output of a quantizer: codes without zero point, their scale, and the codes that it can give."""

    codes: Codes
    scale: np.float32
    range: CodeRange


@dataclass(frozen=True)
class QdqReading:
    """What a file computes from some images.

    Attributes:
        tensors: by name of the tensor that holds the codes: the output of a QuantizeLinear, or of the Clip
            which alone reads it.
        values: float32 results of products of codes that no quantizer alone reads, by tensor name.
        layers: integer operands of each convolution and product with weights, by name of its weight tensor.
        rescaled: each DequantizeLinear with another scale or zero point than the quantizer it reads.
        logits: the first graph output, float32.
    """

    tensors: dict[str, QuantizedTensor]
    values: dict[str, Float32]
    layers: dict[str, IntegerOperands]
    rescaled: tuple[str, ...]
    logits: Float32
