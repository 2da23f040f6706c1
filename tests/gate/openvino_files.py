"""Mutants of the file for OpenVINO alone, made after everything else was right."""

from tests.gate.edits import (
    Edit,
    add_to,
    attribute,
    bypassed,
    constant,
    flip_sign,
    operation,
    own_constant,
    read_instead,
    swapped,
    times,
    unused_constant,
    zeroed,
)
from tests.gate.files import next_float, one_place
from tests.gate.harness import Mutant
from tests.gate.tensorrt_files import clip_without_upper_bound

__all__ = ["MUTANTS"]

_CNN: tuple[tuple[str, Edit, str], ...] = (
    ("one code off by one", constant("mix.0.weight_packed", one_place), r"mix"),
    ("codes of the last layer negated", constant("head.fc.weight", flip_sign), r"head\.fc|logits"),
    ("biases zeroed", constant("depthwise.0.bias", zeroed), r"depthwise"),
    ("one bias off by one", constant("branch.1.bias", add_to((2,), 1)), r"branch\.1"),
    ("bias of another layer", swapped("branch.1.bias", "shortcut.0.bias"), r"branch|shortcut"),
    ("scale of weights times 1.0001", constant("branch.0.0.weight_scale", times(1.0001)), r"branch"),
    ("scale of an activation times 1.0001", constant("quantizers.relu.scale", times(1.0001)), r"relu"),
    ("scale of the image one float further", constant("quantizers.image.scale", next_float), r"image"),
    (
        "another quantizer's scale",
        read_instead("depthwise_2.values", 1, "quantizers.relu.scale"),
        r"depthwise_2",
    ),
    ("upper bound", own_constant("stem_2.bounded", 2, times(14 / 15)), r"stem_2"),
    ("upper bound dropped", clip_without_upper_bound("branch_0_2.bounded"), r"branch_0_2"),
    ("Clip dropped", bypassed("stem_2.bounded"), r"pool\.codes|stem_2"),
    ("padding", attribute("branch.0.0", pads=[2, 2, 0, 0]), r"branch"),
    ("subtraction for addition", operation("add", "Sub"), r"add|relu"),
    ("zero point", own_constant("image.codes", 2, lambda v: v + 1), r"image"),
    ("number that no record has", unused_constant("stray"), r"stray"),
)

MUTANTS = tuple(Mutant(name, "openvino", "openvino", change, named) for name, change, named in _CNN)
