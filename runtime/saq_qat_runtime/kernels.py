"""Which matrix products run on integers: "integer" is counted in the engine's own graph, never assumed."""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["FLOAT_KERNELS", "INTEGER_KERNELS", "IntegerCount", "count_kernels"]

INTEGER_KERNELS = frozenset(
    {
        "ConvInteger",
        "DynamicQuantizeMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "QAttention",
        "QGemm",
        "QLinearConv",
        "QLinearMatMul",
    }
)
FLOAT_KERNELS = frozenset(
    {
        "Attention",
        "Conv",
        "ConvTranspose",
        "FusedConv",
        "FusedGemm",
        "FusedMatMul",
        "Gemm",
        "MatMul",
        "MatMulNBits",
        "MultiHeadAttention",
        "NhwcFusedConv",
    }
)


@dataclass(frozen=True)
class IntegerCount:
    """Convolutions and matrix products of an optimized graph: on integer kernels, in all, by operator."""

    integer: int
    total: int
    by_op: dict[str, int]

    @property
    def label(self) -> str:
        """How the model may be called; a graph without integer kernels is called float."""
        if self.integer == 0:
            return f"float (0/{self.total} products on integer kernels)"
        kind = "integer" if self.integer == self.total else "partly integer"
        return f"{kind} ({self.integer}/{self.total} products on integer kernels)"


def count_kernels(operators: Mapping[str, int]) -> IntegerCount:
    """Count convolutions and matrix products among the operators of an optimized graph."""
    products = INTEGER_KERNELS | FLOAT_KERNELS
    by_op = {name: count for name, count in sorted(operators.items()) if name in products}
    integer = sum(count for name, count in by_op.items() if name in INTEGER_KERNELS)
    return IntegerCount(integer, sum(by_op.values()), by_op)
