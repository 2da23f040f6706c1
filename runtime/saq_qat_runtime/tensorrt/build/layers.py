"""The layers of an engine, from the two lists that TensorRT gives: the log of a build and the inspector."""

import json
import re
from dataclasses import dataclass
from typing import Any

from saq_qat.errors import EngineError
from saq_qat_runtime.tensorrt.build.exchange import LayerSource

__all__ = ["EngineLayer", "EngineLayers", "layers_of_inspector", "layers_of_log", "read_layers"]

_LINE = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*), Inputs: (?P<inputs>\[.*?\])"
    r"(?:, Constants: (?P<constants>\[.*?\]))?, Outputs: .*?, Metadata:(?P<metadata>.*)"
)
_TYPE_IN_LINE = re.compile(r"Datatype: (\w+)")
_INT8 = re.compile(r"\bint8\b", re.IGNORECASE)
_NODE = "[ONNX Layer: {}]"


@dataclass(frozen=True)
class EngineLayer:
    """One layer of an engine.

    kind: the library's name for what it computes, such as "correlation" or "CaskConvolution". inputs,
    constants: element types as the library writes them, in its order. metadata: names the ONNX nodes it comes
    from.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    constants: tuple[str, ...]
    metadata: str

    def comes_from(self, node: str) -> bool:
        """Whether the ONNX node of that name is among those it was made of."""
        return _NODE.format(node) in self.metadata


@dataclass(frozen=True)
class EngineLayers:
    """All layers of an engine, and where the list comes from."""

    source: LayerSource
    layers: tuple[EngineLayer, ...]


def read_layers(source: LayerSource, text: str) -> EngineLayers:
    """Layers from the text of either list.

    Raises:
        EngineError: it is not such a list.
    """
    return EngineLayers(source, layers_of_log(text) if source == "build log" else layers_of_inspector(text))


def layers_of_log(text: str) -> tuple[EngineLayer, ...]:
    """Layers of the block that starts with ``Layers:`` in a verbose build log, one line each."""
    lines = [line for line in text.splitlines() if line.startswith("Name: ")]
    return tuple(_layer_of_line(line) for line in lines)


def _layer_of_line(line: str) -> EngineLayer:
    found = _LINE.fullmatch(line.rstrip())
    if found is None:
        return _unknown(line)
    types = [tuple(_TYPE_IN_LINE.findall(found[part] or "")) for part in ("inputs", "constants")]
    return EngineLayer(found["name"], found["kind"], types[0], types[1], found["metadata"])


def _unknown(text: str) -> EngineLayer:
    """A layer whose types cannot be read: it stays in the list, and nothing about it is believed."""
    return EngineLayer(text, "unknown", (), (), text)


def layers_of_inspector(text: str) -> tuple[EngineLayer, ...]:
    """Layers of the JSON that ``EngineInspector.get_engine_information`` gives.

    TensorRT 10 writes format and type of a tensor in one field, TensorRT 11 in two; only the list of inputs
    and outputs of the whole engine, which is not read here, moved from "Bindings" to "I/O Tensors". Without
    detailed profiling a layer is a name, of which nothing is known. Written after NVIDIA's documentation and
    its migration guide; never run on a GPU.

    Raises:
        EngineError: it is not such JSON.
    """
    try:
        layers = json.loads(text)["Layers"]
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(f"The engine inspector gave no list of layers ({error}): {text[:200]}") from error
    return tuple(_unknown(layer) if isinstance(layer, str) else _layer_of_record(layer) for layer in layers)


def _layer_of_record(layer: dict[str, Any]) -> EngineLayer:
    constants = [_type_of(tensor) for tensor in layer.get("Constants", ())]
    weights = layer.get("Weights")
    if isinstance(weights, dict):
        constants.append(_normal(str(weights.get("Type", ""))))
    return EngineLayer(
        name=str(layer.get("Name", "")),
        kind=str(layer.get("LayerType", "")),
        inputs=tuple(_type_of(tensor) for tensor in layer.get("Inputs", ())),
        constants=tuple(constants),
        metadata=str(layer.get("Metadata", "")),
    )


def _type_of(tensor: dict[str, Any]) -> str:
    """The element type; TensorRT 10 hides it in words such as "Row major Int8 format"."""
    return _normal(str(tensor.get("Datatype") or tensor.get("DataType") or tensor.get("Format/Datatype", "")))


def _normal(text: str) -> str:
    return "Int8" if _INT8.search(text) else text
