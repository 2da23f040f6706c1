"""Shapes of what convolutions, pools, recurrent layers and resizings write, and the memory that their kernels
take beside.
"""

from math import floor, isfinite, prod

from saq_qat_runtime.bundle.decode import require
from saq_qat_runtime.bundle.onnx_call import BATCH, Call, Shape, cannot_tell

__all__ = [
    "between",
    "columns",
    "convolution",
    "depth_to_space",
    "global_pool",
    "grid_sample",
    "pad",
    "patches_added",
    "pool",
    "recurrent",
    "resize",
    "space_to_depth",
    "transposed_columns",
    "transposed_convolution",
]


def convolution(call: Call) -> Shape:
    x, weight = _image(call), call.shape(1)
    require(len(weight) == len(x), f"an image of {len(x)} axes and a weight of {len(weight)}.")
    _require_bias(call, weight[0])
    return (x[0], weight[0], *_slid(call, x[2:], weight[2:]))


def columns(call: Call) -> int:
    """Bytes of the codes that meet each weight of a convolution, or of its padded input."""
    x, weight = _image(call), call.shape(1)
    padded = prod(size + more for size, more in zip(x[2:], _padding(call, len(x) - 2), strict=True))
    met = prod(weight[1:]) * call.number("group", 1) * prod(convolution(call)[2:])
    return x[0] * max(met, x[1] * padded * call.tensor(0).width)


def transposed_convolution(call: Call) -> Shape:
    x, weight = _image(call), call.shape(1)
    axes = len(x) - 2
    require(len(weight) == len(x), f"an image of {len(x)} axes and a weight of {len(weight)}.")
    asked = call.numbers("output_shape")
    if asked is not None:
        sizes: Shape = asked[-axes:]
    else:
        strides, dilations = _each(call, "strides", axes, 1), _each(call, "dilations", axes, 1)
        more, kernel = _each(call, "output_padding", axes, 0), weight[2:]
        moves = zip(x[2:], kernel, strides, dilations, more, _cut(call, axes), strict=True)
        sizes = tuple(
            max(0, pace * (size - 1) + extra + step * (width - 1) + 1 - cut)
            for size, width, pace, step, extra, cut in moves
        )
    channels = weight[1] * call.number("group", 1)
    _require_bias(call, channels)
    return (x[0], channels, *sizes)


def transposed_columns(call: Call) -> int:
    """Bytes of its products before they are added up."""
    x, weight = _image(call), call.shape(1)
    return x[0] * prod(x[2:]) * prod(weight[1:]) * call.number("group", 1) * call.tensor(0).width


def pool(call: Call) -> list[Shape]:
    x, kernel = _image(call), call.numbers("kernel_shape")
    if kernel is None:
        cannot_tell("it has no kernel_shape")
    require(min(kernel, default=1) > 0, f"its kernel_shape is {kernel}; a window has a pixel or more.")
    return [(*x[:2], *_slid(call, x[2:], kernel))] * call.results


def global_pool(call: Call) -> Shape:
    x = _image(call)
    return (*x[:2], *(1 for _ in x[2:]))


def pad(call: Call) -> Shape:
    shape, pads, axes = list(call.shape()), call.integers(1), call.integers(3)
    axes = tuple(range(len(shape))) if axes is None else axes
    require(pads is not None and len(pads) == 2 * len(axes), "it has other pads than two for every axis.")
    for place, axis in enumerate(axes):
        require(-len(shape) <= axis < len(shape), f"axis {axis} is none of {len(shape)}.")
        shape[axis] = max(0, shape[axis] + (pads or ())[place] + (pads or ())[place + len(axes)])
    return tuple(shape)


def resize(call: Call) -> Shape:
    shape, axes = list(call.shape()), call.numbers("axes")
    axes = tuple(range(len(shape))) if axes is None else axes
    policy = call.text("keep_aspect_ratio_policy", "stretch")
    require(policy == "stretch", f"its keep_aspect_ratio_policy is {policy}, and no bundle has any.")
    sizes, scales = call.integers(3), call.values(2)
    given = sizes or scales or ()
    require(len(given) == len(axes), f"{len(given)} sizes for {len(axes)} axes.")
    for axis, asked in zip(axes, given, strict=True):
        require(-len(shape) <= axis < len(shape), f"axis {axis} is none of {len(shape)}.")
        shape[axis] = _resized(shape[axis], int(asked)) if sizes else _scaled(shape[axis], asked)
    return tuple(shape)


def between(call: Call) -> int:
    """Bytes of an image that is resized along one axis after the other, in whatever order."""
    before, after = call.shape(), resize(call)
    return prod(max(sizes) for sizes in zip(before, after, strict=True)) * call.tensor(0).width


def patches_added(call: Call) -> Shape:
    """Overlapping patches, (N, channels x block, places), added up to images of the second input's size."""
    shape, image, block = call.shape(), call.integers(1) or (), call.integers(2) or ()
    known = len(shape) == 3 and 0 < len(image) == len(block) and min(*image, *block) > 0
    require(known and shape[1] % prod(block) == 0, "it is given no size of images and patches that fit.")
    return (shape[0], shape[1] // prod(block), *image)


def depth_to_space(call: Call) -> Shape:
    (count, channels, *sizes), block = _image(call), _block(call)
    return (count, channels // block**2, *(size * block for size in sizes))


def space_to_depth(call: Call) -> Shape:
    (count, channels, *sizes), block = _image(call), _block(call)
    return (count, channels * block**2, *(size // block for size in sizes))


def grid_sample(call: Call) -> Shape:
    return call.shape()[:2] + call.shape(1)[1:-1]


def recurrent(call: Call) -> list[Shape]:
    """Of LSTM, GRU and RNN: all states, and the last ones."""
    x, directions, hidden = call.shape(), call.shape(2)[0], call.shape(2)[-1]
    require(len(x) == 3, "its input must have three axes.")
    if call.number("layout", 0):
        last: Shape = (x[0], directions, hidden)
        return [(x[0], x[1], directions, hidden), last, last]
    last = (directions, x[1], hidden)
    return [(x[0], directions, x[1], hidden), last, last]


def _require_bias(call: Call, channels: int) -> None:
    """Behind a transposed convolution whose bias was its image, OpenVINO 2026.4 crashed in the next model."""
    bias = call.inputs[2] if len(call.inputs) > 2 else None
    fits = bias is None or (bias.constant and bias.shape == (channels,))
    require(fits, f"its bias must be {channels} constants.")


def _image(call: Call) -> Shape:
    shape = call.shape()
    require(len(shape) >= 3, f"it reads images, and its input has {len(shape)} axes.")
    return shape


def _slid(call: Call, sizes: Shape, kernel: Shape) -> list[int]:
    """Behind a window that moves; rounded up, as one with ceil_mode may be."""
    axes = len(sizes)
    strides, dilations = _each(call, "strides", axes, 1), _each(call, "dilations", axes, 1)
    require(len(kernel) == axes, f"a window of {len(kernel)} axes over {axes}.")
    if call.text("auto_pad").startswith("SAME"):
        return [-(-size // pace) for size, pace in zip(sizes, strides, strict=True)]
    upwards = bool(call.number("ceil_mode", 0))
    found = []
    moves = zip(sizes, kernel, _padding(call, axes), strides, dilations, strict=True)
    for size, width, more, pace, step in moves:
        room = size + more - step * (width - 1) - 1
        require(
            room >= 0, f"a window of {step * (width - 1) + 1} over {size + more} pixels, with its padding."
        )
        found.append((-(-room // pace) if upwards else room // pace) + 1)
    return found


def _padding(call: Call, axes: int) -> list[int]:
    """Both sides of each axis together."""
    pads = call.numbers("pads")
    if pads is None:
        return [0] * axes
    require(len(pads) == 2 * axes, f"{len(pads)} pads for {axes} axes.")
    return [max(0, pads[axis]) + max(0, pads[axis + axes]) for axis in range(axes)]


def _cut(call: Call, axes: int) -> list[int]:
    """What pads take from both sides of a transposed convolution; nothing where an engine chooses them."""
    pads = call.numbers("pads")
    if pads is None or call.text("auto_pad", "NOTSET") != "NOTSET":
        return [0] * axes
    require(len(pads) == 2 * axes, f"{len(pads)} pads for {axes} axes.")
    return [pads[axis] + pads[axis + axes] for axis in range(axes)]


def _each(call: Call, name: str, axes: int, default: int) -> Shape:
    found = call.numbers(name)
    found = (default,) * axes if found is None else found
    require(len(found) == axes and min(found) >= default, f"its {name} {found} do not fit {axes} axes.")
    return found


def _block(call: Call) -> int:
    require(len(call.shape()) == 4 and call.number("blocksize", 0) > 0, "it has no blocksize.")
    return call.number("blocksize", 0)


def _resized(size: int, asked: int) -> int:
    if size % BATCH == 0 and asked != size:
        cannot_tell("it resizes the batch")
    return asked


def _scaled(size: int, scale: float) -> int:
    require(isfinite(scale) and scale > 0, f"its scale {scale} is no positive number.")
    if scale == 1:
        return size
    if size % BATCH == 0:
        cannot_tell("it resizes the batch")
    return floor(size * scale)
