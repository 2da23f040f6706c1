"""Changes that nothing can see, because the network that ships computes the same: export must accept them."""

import onnx
from onnx import helper
from torch import fx, nn

from tests.gate.edits import Edit, attribute, node_of
from tests.gate.harness import Mutant
from tests.gate.trained import module_replaced
from tests.gate.views import nodes_of, setting

__all__ = ["EQUIVALENT"]


def inserted_without_effect(before: str, op_type: str) -> Edit:
    def edit(model: onnx.ModelProto) -> None:
        node = node_of(model, before)
        index = list(model.graph.node).index(node)
        model.graph.node.insert(index, helper.make_node(op_type, [node.input[0]], ["same"], name="same"))
        node.input[0] = "same"

    return edit


def addends_in_the_other_order(view: fx.GraphModule) -> None:
    node = nodes_of(view)["add"]
    node.args = (node.args[1], node.args[0])


EQUIVALENT: tuple[tuple[Mutant, str], ...] = (
    (
        Mutant("size of a pool rounded up", "cnn", "onnxruntime", attribute("pool", ceil_mode=1), ""),
        "the input's side is even, so both ways give the same size",
    ),
    (
        Mutant(
            "ReLU behind softmax",
            "vit",
            "onnxruntime",
            inserted_without_effect("softmax.unclipped", "Relu"),
            "",
        ),
        "probabilities are never negative",
    ),
    (
        Mutant("LeakyReLU for ReLU", "cnn", "training", module_replaced("mix.2", nn.LeakyReLU(0.01)), ""),
        "its quantizer has no negative codes: whatever is below zero becomes code 0 either way",
    ),
    (
        Mutant("no ReLU", "cnn", "training", module_replaced("mix.2", nn.Identity()), ""),
        "the same: the quantizer is the ReLU",
    ),
    (
        Mutant("addends in the other order", "cnn", "graph", addends_in_the_other_order, ""),
        "a sum of two codes does not depend on it",
    ),
    (
        Mutant("unused setting", "cnn", "graph", setting("pool", return_indices=False), ""),
        "it is the default",
    ),
)
"""Each with the reason."""
