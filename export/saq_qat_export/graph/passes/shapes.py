"""Shapes of values between the graph's input and output, which ONNX Runtime is better off without.

Where it can tell that two values are of one size, it decides at load time which buffer one takes over from
the other. Left to take buffers as it runs (here, or with its option ``enable_mem_reuse`` off), it computes
ViT-S/16 of 4 bits 6 % faster and the same network in float32 2 %, as measured; ResNet-18 and MobileNetV2,
whose shapes it infers by itself, are as before.
"""

import onnx_ir as ir

__all__ = ["forget_shapes"]


def forget_shapes(model: ir.Model) -> None:
    """Take its shape, not its type, off every computed value but the graph's output, in place."""
    for node in model.graph:
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
