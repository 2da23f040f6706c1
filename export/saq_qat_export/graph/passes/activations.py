"""ReLUs behind linear layers that write floats, as ONNX Runtime does not fuse them into a float kernel."""

import numpy as np
import onnx_ir as ir

__all__ = ["keep_relus_apart"]

_ZERO = "zero"


def keep_relus_apart(model: ir.Model) -> None:
    """Write a Relu right behind a Gemm of codes as the maximum with 0, in place.

    ONNX Runtime fuses Gemm and Relu into a float FusedGemm before it looks for integer kernels
    (GemmActivationFusion). The maximum is the same number, and the Gemm becomes an integer kernel.
    """
    for node in model.graph:
        source = node.inputs[0] if node.op_type == "Relu" else None
        gemm = None if source is None else source.producer()
        if gemm is not None and gemm.op_type == "Gemm" and _reads_codes(gemm):
            node.op_type = "Max"
            node.resize_inputs(2)
            node.replace_input_with(1, _zero(model))


def _reads_codes(gemm: ir.Node) -> bool:
    factors = [None if value is None else value.producer() for value in gemm.inputs[:2]]
    return all(node is not None and node.op_type == "DequantizeLinear" for node in factors)


def _zero(model: ir.Model) -> ir.Value:
    """A float32 0 that all of them share."""
    if _ZERO not in model.graph.initializers:
        tensor = ir.tensor(np.zeros((), np.float32), name=_ZERO)
        shape, kind = ir.Shape(()), ir.TensorType(ir.DataType.FLOAT)
        model.graph.register_initializer(ir.Value(name=_ZERO, const_value=tensor, shape=shape, type=kind))
    return model.graph.initializers[_ZERO]
