"""Small models that ask for gigabytes, one of every kind that was thought of, and harmless ones like them."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.runtime.networks import SIDE, constant, float_network, model_of

__all__ = ["BOMBS", "HARMLESS", "HIDDEN", "Bomb", "as_first_step", "behind", "floats", "integers"]

Bomb: TypeAlias = Callable[[], onnx.ModelProto]
MANY = 1 << 20


def as_first_step(op_type: str, *inputs: Any, source: str = "image", **attributes: Any) -> onnx.ModelProto:
    """A float network behind one more operator, whose further inputs are constants."""
    names = [f"given_{index}" if value is not None else "" for index, value in enumerate(inputs)]
    constants = [constant(name, np.asarray(value)) for name, value in zip(names, inputs, strict=True) if name]
    before = [source] if source else []
    return behind([helper.make_node(op_type, [*before, *names], ["made"], **attributes)], constants)


def behind(nodes: Sequence[onnx.NodeProto], constants: Sequence[onnx.TensorProto]) -> onnx.ModelProto:
    """A float network that averages what `nodes` make as `made`, so that a size fits as well as another."""
    model = float_network()
    model.graph.initializer.extend(constants)
    own = list(model.graph.node)
    del model.graph.node[:]
    tail = [
        helper.make_node("Cast", ["made"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["mean"], keepdims=0),
        helper.make_node("Add", ["image", "mean"], ["seen"]),
    ]
    own[0].input[0] = "seen"
    model.graph.node.extend([*nodes, *tail, *own])
    return model


def integers(*numbers: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(numbers, np.int64)


def floats(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.ones(shape, np.float32)


def outer_matmul() -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["tall", "wide"], ["made"])]
    return behind(nodes, [constant("tall", floats(MANY, 1)), constant("wide", floats(1, MANY))])


def outer_gemm() -> onnx.ModelProto:
    nodes = [helper.make_node("Gemm", ["row", "row"], ["made"], transA=1)]
    return behind(nodes, [constant("row", floats(1, MANY))])


def images_times_images() -> onnx.ModelProto:
    """As large as the batch squared."""
    nodes = [
        helper.make_node("Flatten", ["image"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["columns"], perm=[1, 0]),
        helper.make_node("MatMul", ["rows", "columns"], ["made"]),
    ]
    return behind(nodes, [])


def doubled(op_type: str, **attributes: Any) -> Bomb:
    """Twice as large from node to node."""

    def build() -> onnx.ModelProto:
        names = ["image", *(f"twice_{index}" for index in range(40)), "made"]
        nodes = [helper.make_node(op_type, [a, a], [b], **attributes) for a, b in pairwise(names)]
        return behind(nodes, [])

    return build


def kept_alive() -> onnx.ModelProto:
    """Two thousand tensors of a megabyte, all read at the end."""
    pads = constant("pads", integers(0, 0, 0, 0, 0, 0, 300, 300))
    names = [f"padded_{index}" for index in range(2000)]
    nodes = [helper.make_node("Pad", ["image", "pads"], [name]) for name in names]
    return behind([*nodes, helper.make_node("Sum", names, ["made"])], [pads])


def computed_constants() -> onnx.ModelProto:
    """Of no image: the engine computes them as it loads the file, and keeps them all."""
    constants = [constant("tall", floats(1 << 12, 1)), constant("wide", floats(1, 1 << 12))]
    names = [f"outer_{index}" for index in range(64)]
    nodes = [helper.make_node("Add", ["tall", "wide"], [name]) for name in names]
    return behind([*nodes, helper.make_node("Sum", names, ["made"])], constants)


def large_input() -> onnx.ModelProto:
    model = float_network()
    for place in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[place].dim_value = 1_000_000
    return model


def open_input() -> onnx.ModelProto:
    model = float_network()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    return model


def hollow_weight() -> onnx.ModelProto:
    model = float_network()
    model.graph.initializer.append(
        onnx.TensorProto(name="hollow", data_type=TensorProto.FLOAT, dims=[MANY, MANY])
    )
    return model


def sparse_weight() -> onnx.ModelProto:
    model = float_network()
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [1], [1.0])
    places = helper.make_tensor("places", TensorProto.INT64, [1], [7])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [MANY * MANY]))
    return model


def asked_of_the_batch() -> onnx.ModelProto:
    """A shape that is computed from the batch: harmless for most, terabytes for one."""
    nodes = [
        helper.make_node("Shape", ["image"], ["batch"], end=1),
        helper.make_node("Equal", ["batch", "seven"], ["is_seven"]),
        helper.make_node("Where", ["is_seven", "huge", "small"], ["sizes"]),
        helper.make_node("Concat", ["ones", "sizes", "sizes"], ["shape"], axis=0),
        helper.make_node("Resize", ["image", "", "", "shape"], ["made"]),
    ]
    names = {"seven": integers(7), "huge": integers(MANY), "small": integers(8), "ones": integers(1, 3)}
    return behind(nodes, [constant(name, value) for name, value in names.items()])


def branches() -> onnx.ModelProto:
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["out"], value=constant("c", floats(1)))],
        "branch",
        [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])],
    )
    nodes = [helper.make_node("If", ["yes"], ["made"], then_branch=inner, else_branch=inner)]
    return behind(nodes, [constant("yes", np.array(True))])


def resized(side: int) -> Bomb:
    """Images alone: the batch is taken from the input."""

    def build() -> onnx.ModelProto:
        nodes = [
            helper.make_node("Shape", ["image"], ["batch"], end=2),
            helper.make_node("Concat", ["batch", "sides"], ["sizes"], axis=0),
            helper.make_node("Resize", ["image", "", "", "sizes"], ["made"]),
        ]
        return behind(nodes, [constant("sides", integers(side, side))])

    return build


def _conv(**attributes: Any) -> Bomb:
    return lambda: as_first_step("Conv", floats(4, 3, 3, 3), **attributes)


BOMBS: dict[str, Bomb] = {
    "Resize to sizes": resized(1 << 15),
    "Resize of the batch": lambda: as_first_step("Resize", None, None, integers(1, 3, 16, 16)),
    "Resize by scales": lambda: as_first_step("Resize", None, np.array([1, 1, 4096, 4096], np.float32)),
    "Resize through a tall strip": lambda: as_first_step(
        "Resize", None, np.array([1, 1, 0.125, 1 << 26], np.float32), mode="linear", antialias=1
    ),
    "Pad": lambda: as_first_step("Pad", integers(0, 0, 0, 0, 0, 0, 1 << 15, 1 << 15)),
    "Cast to texts": lambda: behind(
        [
            helper.make_node("Pad", ["image", "pads"], ["wide"]),
            helper.make_node("Cast", ["wide"], ["made"], to=TensorProto.STRING),
        ],
        [constant("pads", integers(0, 0, 0, 0, 0, 0, 8000, 8000))],
    ),
    "patches of huge images": lambda: as_first_step(
        "Col2Im", floats(1, 4, 1), integers(MANY, MANY), integers(2, 2), source=""
    ),
    "Pad by axes": lambda: as_first_step("Pad", integers(1 << 30, 0), None, integers(-1)),
    "Pad of a computed size": lambda: behind(
        [
            helper.make_node("ArgMax", ["numbers"], ["place"], keepdims=1),
            helper.make_node("Concat", ["zeros", "place"], ["pads"], axis=0),
            helper.make_node("Pad", ["image", "pads"], ["made"]),
        ],
        [constant("numbers", floats(9)), constant("zeros", integers(0, 0, 0, 0, 0, 0, 0))],
    ),
    "RandomNormal": lambda: as_first_step("RandomNormal", source="", shape=[MANY, MANY]),
    "RandomUniform": lambda: as_first_step("RandomUniform", source="", shape=[MANY, MANY]),
    "RandomNormalLike": lambda: as_first_step("RandomNormalLike"),
    "Bernoulli": lambda: as_first_step("Bernoulli"),
    "Multinomial": lambda: behind(
        [
            helper.make_node("Flatten", ["image"], ["rows"]),
            helper.make_node("Multinomial", ["rows"], ["made"], sample_size=1 << 30),
        ],
        [],
    ),
    "OneHot": lambda: as_first_step(
        "OneHot", np.zeros(1 << 16, np.int64), integers(MANY), floats(2), source=""
    ),
    "EyeLike": lambda: as_first_step("EyeLike", floats(1 << 17, 1), source="", k=1),
    "outer Add": lambda: as_first_step("Add", floats(MANY, 1, 1), floats(1, MANY, 1), source=""),
    "outer Where": lambda: as_first_step(
        "Where", np.ones((MANY, 1), bool), floats(1, MANY), floats(1), source=""
    ),
    "outer Equal": lambda: as_first_step("Equal", floats(MANY, 1), floats(1, MANY), source=""),
    "outer Max": lambda: as_first_step("Max", floats(MANY, 1), floats(1, MANY), source=""),
    "outer Einsum": lambda: as_first_step(
        "Einsum", floats(MANY), floats(MANY), source="", equation="i,j->ij"
    ),
    "Einsum on the way to a number": lambda: as_first_step(
        "Einsum", *[floats(MANY)] * 4, source="", equation="i,j,i,j->"
    ),
    "outer MatMul": outer_matmul,
    "outer Gemm": outer_gemm,
    "batch by batch": images_times_images,
    "Gather": lambda: as_first_step("Gather", floats(1, 1 << 16), np.zeros(1 << 18, np.int64), source=""),
    "GatherND": lambda: as_first_step(
        "GatherND", floats(1, 1 << 16), np.zeros((1 << 18, 1), np.int64), source=""
    ),
    "ConvTranspose": lambda: as_first_step("ConvTranspose", floats(3, 4, 3, 3), strides=[1 << 14, 1 << 14]),
    "ConvTranspose to a shape": lambda: as_first_step(
        "ConvTranspose", floats(3, 4, 3, 3), output_shape=[1 << 15, 1 << 15]
    ),
    "Conv padding": _conv(pads=[1 << 15, 1 << 15, 1 << 15, 1 << 15]),
    "Conv padding behind strides": _conv(pads=[1 << 15] * 4, strides=[1 << 15, 1 << 15]),
    "MaxPool padding": lambda: as_first_step(
        "MaxPool", kernel_shape=[1 << 16, 1 << 16], pads=[(1 << 16) - 1] * 4
    ),
    "AffineGrid": lambda: as_first_step(
        "AffineGrid", floats(1, 2, 3), integers(1, 1, 1 << 15, 1 << 15), source=""
    ),
    "HannWindow": lambda: as_first_step("HannWindow", np.array(1 << 40, np.int64), source=""),
    "HammingWindow": lambda: as_first_step("HammingWindow", np.array(1 << 40, np.int64), source=""),
    "BlackmanWindow": lambda: as_first_step("BlackmanWindow", np.array(1 << 40, np.int64), source=""),
    "MelWeightMatrix": lambda: as_first_step(
        "MelWeightMatrix",
        *(np.array(value, np.int64) for value in (MANY, MANY, 8000)),
        np.array(0, np.float32),
        np.array(4000, np.float32),
        source="",
    ),
    "Concat doubling": doubled("Concat", axis=1),
    "Concat doubling along the width": doubled("Concat", axis=3),
    "tensors that stay": kept_alive,
    "constants that are computed": computed_constants,
    "ConstantOfShape": lambda: as_first_step("ConstantOfShape", integers(1 << 40), source=""),
    "Expand": lambda: as_first_step("Expand", integers(MANY, 3, SIDE, SIDE)),
    "Tile": lambda: as_first_step("Tile", integers(1, MANY, MANY, 1)),
    "Range": lambda: as_first_step(
        "Range", *(np.array(value, np.int64) for value in (0, 1 << 40, 1)), source=""
    ),
    "TopK": lambda: model_of(
        [helper.make_node("TopK", ["image", "k"], ["logits", "places"])], [constant("k", integers(1 << 40))]
    ),
    "DepthToSpace": lambda: as_first_step("DepthToSpace", blocksize=0),
    "Upsample": lambda: as_first_step("Upsample", np.array([1, 1, 4096, 4096], np.float32)),
    "CenterCropPad": lambda: as_first_step("CenterCropPad", integers(1 << 15, 1 << 15), axes=[2, 3]),
    "Col2Im": lambda: as_first_step("Col2Im", integers(1 << 15, 1 << 15), integers(1, 1)),
    "NonZero": lambda: as_first_step("NonZero"),
    "DFT": lambda: as_first_step("DFT", np.array(1 << 34, np.int64)),
    "If": branches,
    "a shape that depends on the batch": asked_of_the_batch,
    "a large input": large_input,
    "an open input": open_input,
    "a weight without data": hollow_weight,
    "a sparse weight": sparse_weight,
}  # fmt: skip  # one value a line is a page


def older_resize() -> bytes:
    """Of opset 10, where its second input is not the region but the scales."""
    nodes = [helper.make_node("Resize", ["image", "scales"], ["made"])]
    model = behind(nodes, [constant("scales", np.array([1, 1, 4096, 4096], np.float32))])
    model.opset_import[0].version = 10
    return bytes(model.SerializeToString())


def two_names() -> bytes:
    """A node whose operator is given twice: readers take the last."""
    model = as_first_step("Relu")
    node = model.graph.node[0]
    node.op_type = "Tile"
    node.input.append("repeats")
    model.graph.initializer.append(constant("repeats", integers(1, MANY, MANY, 1)))
    content = bytes(model.SerializeToString())
    return content.replace(b"\x22\x04Tile", b"\x22\x04Relu\x22\x04Tile", 1)


def in_another_domain() -> bytes:
    model = as_first_step("Relu")
    model.graph.node[0].domain = "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return bytes(model.SerializeToString())


def another_attribute() -> bytes:
    model = as_first_step("Relu")
    model.graph.node[0].attribute.append(helper.make_attribute("consumed_inputs", [0]))
    return bytes(model.SerializeToString())


def second_graph() -> bytes:
    """Readers merge the two."""
    return bytes(float_network().SerializeToString()) + b"\x3a\x00"


def endless_nodes() -> bytes:
    """Nodes of two bytes, each of which costs a reader hundreds."""
    content = b"\x0a\x00" * 100_000
    size, length = len(content), b""
    while size:
        length += bytes([(size & 0x7F) | (0x80 if size > 0x7F else 0)])
        size >>= 7
    return b"\x3a" + length + content


HIDDEN: dict[str, Callable[[], bytes]] = {
    "an older Resize": older_resize,
    "an operator with two names": two_names,
    "a domain of others": in_another_domain,
    "an attribute that is not written": another_attribute,
    "two graphs": second_graph,
    "a hundred thousand nodes": endless_nodes,
}

HARMLESS: dict[str, Bomb] = {
    "Resize to sizes": resized(16),
    "Resize by scales": lambda: as_first_step("Resize", None, np.array([1, 1, 2, 2], np.float32)),
    "Mul with an axis more": lambda: as_first_step("Mul", floats(1, 1, 3, 1, 1)),
    "MatMul of every channel": lambda: as_first_step("MatMul", floats(1, 3, SIDE, 7)),
    "MaxPool over the whole image": lambda: as_first_step("MaxPool", kernel_shape=[SIDE, SIDE]),
    "Pad": lambda: as_first_step("Pad", integers(0, 0, 1, 1, 0, 0, 1, 1)),
    "Pad by axes": lambda: as_first_step("Pad", integers(1, 1, 1, 1), None, integers(2, 3)),
    "ConvTranspose": lambda: as_first_step("ConvTranspose", floats(3, 4, 3, 3), strides=[2, 2]),
    "Gather": lambda: as_first_step("Gather", integers(0, 2), axis=1),
    "Concat": lambda: behind([helper.make_node("Concat", ["image", "image"], ["made"], axis=1)], []),
    "MatMul": lambda: as_first_step("MatMul", floats(SIDE, 7)),
    "Einsum": lambda: as_first_step("Einsum", floats(SIDE, 7), equation="bchw,wk->bchk"),
}
