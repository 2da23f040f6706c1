"""Operations that ONNX operators take: multiply-adds, comparisons and copies, from the shapes that they read.

A bound and no measurement. An engine multiplies matrices many numbers at a time, and walks over windows and
elements one by one, so such a step counts as many multiply-adds as an engine does meanwhile.
"""

from collections.abc import Iterable
from math import prod

from saq_qat_runtime.bundle import onnx_einsum as contractions
from saq_qat_runtime.bundle import onnx_shapes as shapes
from saq_qat_runtime.bundle import onnx_windows as windows
from saq_qat_runtime.bundle.onnx_call import BATCH, Call, Shape

__all__ = [
    "contraction",
    "convolution",
    "elements",
    "gemm",
    "matmul",
    "neighbours",
    "pool",
    "recurrent",
    "resize",
    "sampled",
    "sorted_out",
    "transposed_convolution",
]

_STEP = 32
"""Multiply-adds that an engine does while it compares, adds or copies one number."""

_SAMPLES = 16
"""Pixels that a cubic interpolation reads for one."""

_COMPARISONS = 32
"""Of one number with others while the largest are sought: more than the logarithm of any size."""


def elements(shapes_met: Iterable[Shape]) -> int:
    """Of all that a node reads and writes, each once; as of one image if an image has a part in any."""
    sizes = [prod(shape) for shape in shapes_met]
    of_images = [size for size in sizes if size % BATCH == 0]
    others = sum(size for size in sizes if size % BATCH)
    return _STEP * (sum(of_images) + others * (BATCH if any(of_images) else 1))


def convolution(call: Call) -> int:
    return prod(windows.convolution(call)) * prod(call.shape(1)[1:])


def transposed_convolution(call: Call) -> int:
    """Weights are (channels, ...), and each meets every place of its channel."""
    x = call.shape()
    return x[0] * prod(x[2:]) * prod(call.shape(1))


def pool(call: Call) -> int:
    return _STEP * prod(windows.pool(call)[0]) * prod(call.numbers("kernel_shape") or ())


def matmul(call: Call) -> int:
    return prod(shapes.matmul(call)) * call.shape()[-1]


def gemm(call: Call) -> int:
    return prod(shapes.gemm(call)) * call.shape()[0 if call.number("transA", 0) else 1]


def contraction(call: Call) -> int:
    return contractions.products(call)


def recurrent(call: Call) -> int:
    """Every step of every sequence meets the weights of the input and those of the state."""
    return prod(call.shape()[:2]) * (prod(call.shape(1)) + prod(call.shape(2)))


def resize(call: Call) -> int:
    """Along one axis after the other; one that shrinks reads every pixel."""
    before, after = call.shape(), windows.resize(call)
    return _STEP * _SAMPLES * prod(max(sizes) for sizes in zip(before, after, strict=True))


def sampled(call: Call) -> int:
    return _STEP * _SAMPLES * prod(windows.grid_sample(call))


def neighbours(call: Call) -> int:
    """Of a normalization over channels beside."""
    return _STEP * prod(call.shape()) * max(1, call.number("size", 1))


def sorted_out(call: Call) -> int:
    return _STEP * _COMPARISONS * prod(call.shape())
