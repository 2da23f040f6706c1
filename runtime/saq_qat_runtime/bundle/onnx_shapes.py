"""Shapes of what ONNX operators write, from those that they read: a bound for whatever an engine accepts.

Sources: the operators' definitions, opset 18 and later (https://onnx.ai/onnx/operators).
"""

from collections.abc import Iterable, Sequence
from math import prod

from saq_qat_runtime.bundle.decode import require
from saq_qat_runtime.bundle.onnx_call import BATCH, Call, Shape, cannot_tell, place

__all__ = [
    "arg_reduce",
    "broadcast",
    "broadcast_into",
    "concat",
    "flatten",
    "gather",
    "gather_elements",
    "gather_nd",
    "gemm",
    "matmul",
    "reduce",
    "reshape",
    "same",
    "scaled",
    "shape_of",
    "slice_of",
    "split",
    "squeeze",
    "top_k",
    "transpose",
    "unsqueeze",
]


def same(call: Call) -> Shape:
    """As the first input."""
    return call.shape()


def broadcast(call: Call) -> Shape:
    return _broadcast(found.shape for found in call.inputs if found is not None)


def broadcast_into(call: Call) -> Shape:
    """As the first input: engines would make it larger for a further one with more axes or longer ones."""
    shape = call.shape()
    for found in call.inputs[1:]:
        if found is not None:
            _require_fit(found.shape, shape)
    return shape


def scaled(call: Call) -> Shape:
    """As the first input, with scales for all of it, for the places of one axis, or for blocks."""
    shape = call.shape()
    for found in call.inputs[1:3]:
        given = (
            ()
            if found is None or (prod(found.shape) == 1 and len(found.shape) <= len(shape))
            else found.shape
        )
        if len(given) == 1:
            given += (1,) * (len(shape) - 1 - call.axis(len(shape), 1))
        if len(given) != len(shape) or not call.number("block_size", 0):
            _require_fit(given, shape)
        else:
            fits = all(own <= size for own, size in zip(given, shape, strict=True) if own != 1)
            batch = any(map(_is_batch, shape))
            require(fits and not batch, f"scales of {given} do not fit blocks of {shape}.")
    return shape


def matmul(call: Call) -> Shape:
    left, right = call.shape(0), call.shape(1)
    require(len(left) > 0 and len(right) > 0, "it multiplies matrices, and one is a number.")
    lead = _broadcast((left[:-2], right[:-2]))
    return lead + left[-2:-1] + (right[-1:] if len(right) > 1 else ())


def gemm(call: Call) -> Shape:
    left, right = _of_rank(call, 0, 2), _of_rank(call, 1, 2)
    shape = left[1 if call.number("transA", 0) else 0], right[0 if call.number("transB", 0) else 1]
    if len(call.inputs) > 2 and call.inputs[2] is not None:
        _require_fit(call.shape(2), shape)
    return shape


def reduce(call: Call) -> Shape:
    """Of the axes in the second input; of all without one."""
    shape, axes = call.shape(), call.integers(1)
    if not axes:
        if axes is not None and call.number("noop_with_empty_axes", 0):
            return shape
        axes = tuple(range(len(shape)))
    return _reduced(shape, axes, bool(call.number("keepdims", 1)))


def arg_reduce(call: Call) -> Shape:
    shape = call.shape()
    return _reduced(shape, (call.axis(len(shape)),), bool(call.number("keepdims", 1)))


def reshape(call: Call) -> Shape:
    shape, asked = call.shape(), call.integers(1)
    if asked is None or asked.count(-1) > 1 or min(asked, default=0) < -1:
        cannot_tell("it is given no shape")
    keeps_zero = bool(call.number("allowzero", 0))
    sizes = [
        shape[axis] if size == 0 and not keeps_zero and axis < len(shape) else size
        for axis, size in enumerate(asked)
    ]
    total = prod(shape)
    if -1 in sizes:
        rest = prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = total // rest if rest else 0
    if prod(sizes) != total:
        cannot_tell(f"{total} numbers do not fill {sizes}")
    return tuple(sizes)


def flatten(call: Call) -> Shape:
    shape = call.shape()
    axis = call.number("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return prod(shape[:axis]), prod(shape[axis:])


def squeeze(call: Call) -> Shape:
    shape, axes = call.shape(), call.integers(1)
    if axes is None and any(map(_is_batch, shape)):
        cannot_tell("it names no axes, and one image would lose the axis of the batch")
    gone = {place(axis, len(shape)) for axis in axes} if axes is not None else None
    return tuple(size for axis, size in enumerate(shape) if (size != 1 if gone is None else axis not in gone))


def unsqueeze(call: Call) -> Shape:
    shape, axes = list(call.shape()), call.integers(1) or ()
    rank = len(shape) + len(axes)
    for axis in sorted(place(axis, rank) for axis in axes):
        shape.insert(axis, 1)
    return tuple(shape)


def transpose(call: Call) -> Shape:
    shape, order = call.shape(), call.numbers("perm")
    order = tuple(range(len(shape)))[::-1] if order is None else order
    require(sorted(order) == list(range(len(shape))), f"perm {order} does not fit {len(shape)} axes.")
    return tuple(shape[axis] for axis in order)


def concat(call: Call) -> Shape:
    shapes = [found.shape for found in call.inputs if found is not None]
    shape = list(call.shape())
    axis = call.axis(len(shape))
    require(all(len(other) == len(shape) for other in shapes), "it joins tensors of several ranks.")
    shape = [max(sizes) for sizes in zip(*shapes, strict=True)]
    shape[axis] = sum(other[axis] for other in shapes)
    return tuple(shape)


def split(call: Call) -> list[Shape]:
    shape, sizes = call.shape(), call.integers(1)
    axis = call.axis(len(shape))
    if sizes is None:
        each = -(-shape[axis] // max(call.results, 1))
        sizes = (each,) * call.results
    require(len(sizes) == call.results and min(sizes) >= 0, "it splits into other parts than it names.")
    return [(*shape[:axis], min(size, shape[axis]), *shape[axis + 1 :]) for size in sizes]


def slice_of(call: Call) -> Shape:
    """Exact where the numbers are known, as large as the input elsewhere."""
    shape = list(call.shape())
    given = [found if found is None else found.numbers for found in (*call.inputs[1:], None, None, None)[:4]]
    starts, ends, axes, steps = ([] if found is None else list(map(int, found)) for found in given)
    axes = axes or list(range(len(starts)))
    steps = steps or [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        return tuple(shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        own = place(axis, len(shape))
        if step != 0 and abs(start) < BATCH // 2:
            first, last, pace = slice(start, end, step).indices(shape[own])
            shape[own] = max(0, -((first - last) // pace) if pace > 0 else -((last - first) // -pace))
    return tuple(shape)


def gather(call: Call) -> Shape:
    shape = call.shape()
    axis = call.axis(len(shape))
    return shape[:axis] + call.shape(1) + shape[axis + 1 :]


def gather_elements(call: Call) -> Shape:
    return call.shape(1)


def gather_nd(call: Call) -> Shape:
    shape, places = call.shape(), call.shape(1)
    alike = call.number("batch_dims", 0)
    require(len(places) > 0 and 0 <= alike < len(shape), "it gathers by no places.")
    return places[:-1] + shape[alike + places[-1] :]


def top_k(call: Call) -> list[Shape]:
    shape, count = list(call.shape()), call.integers(1)
    if not count:
        cannot_tell("it is not said how many")
    shape[call.axis(len(shape), -1)] = count[0]
    return [tuple(shape)] * call.results


def shape_of(call: Call) -> Shape:
    return (len(call.shape()[_part(call)]),)


def _with_ones(shape: Shape, rank: int) -> Shape:
    """With ones before it."""
    return (1,) * (rank - len(shape)) + shape


def _part(call: Call) -> slice:
    end = call.attributes.get("end")
    return slice(call.number("start", 0), end if isinstance(end, int) else None)


def _of_rank(call: Call, index: int, rank: int) -> Shape:
    shape = call.shape(index)
    require(len(shape) == rank, f"input {index} must have {rank} axes, it has {len(shape)}.")
    return shape


def _broadcast(shapes: Iterable[Shape]) -> Shape:
    """An engine refuses sizes that differ and are not 1; the larger is no less than what it could give.

    The batch is both: large, and 1 for one image, which an engine repeats for whatever it meets.
    """
    listed = list(shapes)
    rank = max(map(len, listed), default=0)
    met = list(zip(*(_with_ones(s, rank) for s in listed), strict=True))
    for sizes in met:
        others = sorted({size for size in sizes if size % BATCH and size != 1})
        if others and any(map(_is_batch, sizes)):
            cannot_tell(f"the batch meets an axis of {others[-1]}, which repeats one image as often")
    return tuple(map(max, met))


def _require_fit(given: Shape, shape: Shape) -> None:
    fits = len(given) <= len(shape) or prod(given) == 1
    require(fits and prod(_broadcast((given, shape))) == prod(shape), f"{given} does not fit into {shape}.")


def _is_batch(size: int) -> bool:
    """Whether a size is 1 for one image, and grows with the batch."""
    while size > 1 and size % BATCH == 0:
        size //= BATCH
        if size == 1:
            return True
    return False


def _reduced(shape: Shape, axes: Sequence[int], keep: bool) -> Shape:
    gone = {place(axis, len(shape)) for axis in axes}
    kept = ((1 if axis in gone else size, axis) for axis, size in enumerate(shape))
    return tuple(size for size, axis in kept if keep or axis not in gone)
