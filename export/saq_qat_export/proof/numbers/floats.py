"""Floats of a file that no quantizer or layer has: parameters, lone BatchNorms, numbers of its code."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from saq_qat_export.proof.numbers.file import GraphFile, attribute
from saq_qat_export.proof.numbers.recurrent import RECURRENT, stored_weights
from saq_qat_export.proof.numbers.tally import Tally
from saq_qat_export.proof.numbers.trained import Trained

__all__ = ["FloatComparison"]

Array = npt.NDArray[Any]

_CASTS = frozenset({"bfloat16", "double", "half", "to", "type"})
_OTHER_FLOATS = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
_PRODUCTS = frozenset({"Conv", "Gemm", "MatMul"})
_EPSILONS = {"LayerNormalization": 1e-5, "InstanceNormalization": 1e-5, "GroupNormalization": 1e-5}
# What exporters write activations with, where a target's operators do not have them.
_DECOMPOSED: dict[str, tuple[float, ...]] = {
    "gelu": (0.5, 1.0, 2.0**0.5, 0.5**0.5, 3.0, 0.044715, (2 / np.pi) ** 0.5, 2.0),
    "hardswish": (0.0, 3.0, 6.0, 1 / 6),
    "hardsigmoid": (0.0, 1.0, 3.0, 6.0, 1 / 6),
    "silu": (1.0,),
    "mish": (1.0,),
    "softplus": (1.0,),
    "relu6": (0.0, 6.0),
    "relu": (0.0,),
    "hardtanh": (0.0,),
    "groupnorm": (1.0, 0.0),
    "zeroslike": (0.0,),
    "newzeros": (0.0,),
    "zeros": (0.0,),
    "oneslike": (1.0,),
    "newones": (1.0,),
    "ones": (1.0,),
}
_INFINITE = ("inf", "-inf")
_COUNTING = ("adaptiveavgpool", "lppool", "std", "var")
"""Operations that exporters write with the number of elements they are over."""
_COMPUTED, _HALF_STEP = 2.0**-18, 2.0**-10


class FloatComparison:
    """Accounts for the constants that are left: floats by a tensor or number of the checkpoint, integers of
    64 bits as shapes, axes and indices. Nothing else may be left."""

    def __init__(self, file: GraphFile, trained: Trained, tally: Tally) -> None:
        self.file, self.trained, self.tally = file, trained, tally
        self.tensors = self._known_tensors()
        self.numbers = self._known_numbers()
        self.removed: dict[float, str] = {}

    def _known_tensors(self) -> dict[str, Array]:
        """By name: parameters that float nodes read, gain and shift of lone BatchNorms; float32."""
        known: dict[str, Array] = {}
        for record in self.trained.records.floats:
            for name in record.tensors:
                array = self.trained.tensor(name)
                if array.dtype.kind == "f":
                    known[name] = array.astype(np.float32)
            if record.op in RECURRENT:
                given = {name.rpartition(".")[2]: self.trained.tensor(name) for name in record.tensors}
                known |= {f"{record.name}.{part}": own for part, own in stored_weights(record.op, given)}
            if record.op == "constant":
                known[record.name] = np.asarray(record.numbers, np.float32)
        for norm in self.trained.records.batch_norms:
            gain, shift = self.trained.batch_norm(norm)
            known[f"{norm.name}.gain"], known[f"{norm.name}.shift"] = gain.astype("f"), shift.astype("f")
        return known

    def _known_numbers(self) -> set[np.float32]:
        known: set[np.float32] = set()
        for record in self.trained.records.floats:
            name = _plain(record.op)
            for number in (*record.numbers, *_DECOMPOSED.get(name, ())):
                known.add(np.float32(number))
                if number:
                    known.add(np.float32(1 / np.float64(number)))
            known |= {np.float32(word) for word in record.words if word in _INFINITE}
        return known

    def allow_bound_of(self, name: str) -> None:
        """A quantizer that a file leaves out may have left the bounds that a ReLU before it became."""
        quantizer = self.trained.quantizers[name]
        if quantizer.record.zero_below:
            self.numbers |= {np.float32(0), np.float32(quantizer.scale * np.float32(quantizer.maximum))}

    def run(self) -> None:
        """Account for every constant that is still open, and for initializers nobody reads."""
        self._norms()
        self._casts()
        self._gelus()
        for node, index in list(self.file.open.values()):
            self._account(node, index)
        for name in self.file.unused():
            self.tally.differ("an initializer", name, "no record", "unused numbers")

    def _casts(self) -> None:
        """A float32 file rounds floats nowhere on the way, unless the network's own code does."""
        if self.file.half or any(record.op.lower() in _CASTS for record in self.trained.records.floats):
            return
        for node in self.file.nodes:
            if node.op_type == "Cast" and attribute(node, "to") in _OTHER_FLOATS:
                self.tally.differ(
                    f"a Cast before {self._readers_of(node)}", node.output[0], "float32", "others"
                )

    def _gelus(self) -> None:
        """Gelu nodes in their order: by the error function or by its approximation."""
        nodes = [node for node in self.file.nodes if node.op_type == "Gelu"]
        records = [record for record in self.trained.records.floats if record.op.lower() == "gelu"]
        for node, record in zip(nodes, records, strict=False):
            own = "tanh" if "tanh" in record.words else "none"
            found = attribute(node, "approximate", b"none").decode()
            if own != found:
                self.tally.differ(f"formula of {record.name}", node.output[0], own, found)

    def _readers_of(self, node: onnx.NodeProto) -> str:
        readers = [reader.output[0] for reader, _ in self.file.uses(node.output[0])]
        return ", ".join(readers) or "the output"

    def _norms(self) -> None:
        """Layer norms in their order: gain, shift and epsilon of each."""
        nodes = [node for node in self.file.nodes if node.op_type == "LayerNormalization"]
        records = [record for record in self.trained.records.floats if "layernorm" in record.op.lower()]
        if len(nodes) != len(records):
            return
        for node, record in zip(nodes, records, strict=True):
            for index, name in enumerate(record.tensors, start=1):
                found = self.file.value(node, index)
                if found is not None:
                    self._equal(name, self.file.name(node, index), self.tensors[name], found)
            epsilon = np.float32(attribute(node, "epsilon", _EPSILONS[node.op_type]))
            if epsilon not in {np.float32(number) for number in record.numbers}:
                self.tally.differ(f"epsilon of {record.name}", "", record.numbers, epsilon)

    def _account(self, node: onnx.NodeProto, index: int) -> None:
        array, name = self.file.constants[node.input[index]], node.input[index]
        self.file.value(node, index)
        if array.dtype.kind in "iub" and self._is_structure(node, array):
            return
        if array.dtype.kind == "f":
            own = self.tensors.get(name)
            if own is not None and own.size == array.size and self._equal_to_any(array) is None:
                self._equal(name, name, own, array)
                return
            if (
                self._equal_to_any(array) is not None
                or self._is_number(array)
                or self._is_computed(array)
                or self._is_of_operator(node, index, array)
            ):
                self.tally.compared += array.size
                return
        self.tally.differ(f"a constant of {node.name or node.op_type}", name, "no record", _summary(array))

    def _is_structure(self, node: onnx.NodeProto, array: Array) -> bool:
        """Shapes, axes, indices and conditions; codes have eight bits, and products read no integers."""
        return array.dtype in (np.int64, np.bool_) and node.op_type not in _PRODUCTS

    def _equal(self, name: str, tensor: str, own: Array, found: Array) -> None:
        stored = own.astype(np.float16).astype(np.float32) if self.file.half else own
        self.tally.equal(f"parameter {name}", tensor, stored.reshape(-1), found.reshape(-1))

    def _equal_to_any(self, found: Array) -> str | None:
        """Name of a tensor of the checkpoint with these numbers, in this order or transposed."""
        flat = found.reshape(-1)
        for name, own in self.tensors.items():
            if own.size != found.size:
                continue
            orders = [own.reshape(-1)] + ([own.T.reshape(-1)] if own.ndim == 2 else [])
            for values in orders:
                stored = values.astype(np.float16) if self.file.half else values
                if np.array_equal(stored, flat):
                    return name
        return None

    def _is_computed(self, found: Array) -> bool:
        """Whether the network computes this from its parameters; sums in another order end in other bits."""
        for own in self.trained.computed.values():
            orders = [own] + ([own.T] if own.ndim == 2 else [])
            for values in orders:
                flat = values.reshape(-1).astype(np.float64)
                if flat.size != found.size:
                    continue
                off = np.abs(found.reshape(-1).astype(np.float64) - flat).max(initial=0)
                if off <= (_HALF_STEP if self.file.half else _COMPUTED) * np.abs(flat).max(initial=0):
                    return True
        return False

    def _is_of_operator(self, node: onnx.NodeProto, index: int, array: Array) -> bool:
        """Numbers that the operator itself asks for: factors of a Resize, counts of averages."""
        if node.op_type == "Resize":
            return index > 0
        is_count = node.op_type in ("Div", "Mul") and bool(
            np.all(array == np.rint(array)) and np.all(array > 0)
        )
        operations = (_plain(record.op) for record in self.trained.records.floats)
        return is_count and any(operation.startswith(_COUNTING) for operation in operations)

    def _is_number(self, array: Array) -> bool:
        """One number of the network's code, once or repeated."""
        values = np.unique(array)
        if not values.size:
            return True
        known = self.numbers
        if self.file.half:
            with np.errstate(over="ignore"):
                known = {np.float32(np.float16(number)) for number in known}
        return values.size == 1 and np.float32(values[0]) in known


def _plain(operation: str) -> str:
    return operation.lower().replace("_", "")


def _summary(array: Array) -> str:
    flat = array.reshape(-1)
    shown = ", ".join(f"{float(x):g}" for x in flat[:3])
    return f"{array.dtype} {array.shape}: {shown}{', ...' if flat.size > 3 else ''}"
