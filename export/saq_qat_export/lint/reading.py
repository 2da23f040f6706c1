"""From an ONNX file or message to the graph that the rules read."""

from pathlib import Path

import onnx
import onnx.inliner
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx.external_data_helper import uses_external_data

from saq_qat.errors import ArtifactError
from saq_qat_export.lint.structure import check_structure
from saq_qat_runtime.bundle.regular_file import read_regular

__all__ = ["prepare", "read_model"]

_MESSAGE_LIMIT = 2**31 - 1
_CONTRIBUTED = "com.microsoft"


def read_model(path: Path) -> ir.Model:
    """The model of a file, ready for the rules; weights in files beside it stay there.

    Raises:
        ArtifactError: the file cannot be read, is no ONNX model, or lacks its weight files.
    """
    try:
        model = onnx.load_model_from_string(read_regular(path), format="protobuf")
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}. Name an ONNX file.") from error
    except DecodeError as error:
        raise ArtifactError(
            f"{path} is no ONNX model: it is not in the protobuf format of ONNX. "
            "Name the .onnx file itself, not an archive, an engine or a checkpoint."
        ) from error
    check_structure(model, str(path))
    for tensor in _initializers(model.graph):
        if uses_external_data(tensor):
            _check_external(tensor, path)
    return prepare(model, str(path), str(path.parent))


def prepare(model: onnx.ModelProto, where: str, folder: str = "") -> ir.Model:
    """Inline local functions, infer shapes and build the object graph.

    Args:
        where: what messages call the model.
        folder: where external weights lie.

    Raises:
        ArtifactError: the model does not hold together.
    """
    check_structure(model, where)
    try:
        read = ir.serde.deserialize_model(_with_shapes(model, where))
    except ir.serde.SerdeError as error:
        raise ArtifactError(
            f"{where} is a broken ONNX model: {error.__cause__ or error}. Export the network again."
        ) from error
    for tensor in _external(read):
        tensor.base_dir = folder
    return read


def _with_shapes(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """The model with functions inlined and every shape that can be inferred, as far as it fits a message."""
    if model.ByteSize() >= _MESSAGE_LIMIT:
        return model
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    contributed = [place for place, node in enumerate(_nodes(model.graph)) if _is_contributed(node)]
    try:
        inferred = onnx.shape_inference.infer_shapes(_moved(model, contributed, ""), data_prop=True)
    except onnx.shape_inference.InferenceError:  # the shapes that the file states must do
        return model
    except (ValueError, MemoryError, RuntimeError) as error:  # as C++ libraries' errors come
        raise ArtifactError(
            f"{where} is a broken ONNX model: its shapes cannot be inferred ({error}). "
            "Export the network again."
        ) from error
    return _moved(inferred, contributed, _CONTRIBUTED)


def _is_contributed(node: onnx.NodeProto) -> bool:
    """A Q or DQ node of ONNX Runtime's domain: shape inference knows only those of the standard one."""
    return node.domain == _CONTRIBUTED and node.op_type in ("QuantizeLinear", "DequantizeLinear")


def _moved(model: onnx.ModelProto, places: list[int], domain: str) -> onnx.ModelProto:
    """A copy with the nodes at these places in another domain; the model itself if there are none."""
    if not places:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    nodes = _nodes(copy.graph)
    for place in places:
        nodes[place].domain = domain
    return copy


def _nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Nodes of the graph and of graphs inside it, in graph order."""
    nodes = []
    for node in graph.node:
        nodes.append(node)
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                nodes += _nodes(inner)
    return nodes


def _initializers(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """Constants of the graph and of graphs inside it, those of Constant nodes included."""
    attributes = [attribute for node in _nodes(graph) for attribute in node.attribute]
    tensors = [attribute.t for attribute in attributes if attribute.HasField("t")]
    inner = [g for attribute in attributes for g in (*attribute.graphs, attribute.g)]
    return tensors + [tensor for part in (graph, *inner) for tensor in part.initializer]


def _external(model: ir.Model) -> list[ir.ExternalTensor]:
    values = (value for graph in model.graphs() for value in graph.initializers.values())
    return [value.const_value for value in values if isinstance(value.const_value, ir.ExternalTensor)]


def _check_external(tensor: onnx.TensorProto, path: Path) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    folder = path.parent.resolve()
    try:
        file = (folder / entries["location"]).resolve()
        needed = int(entries.get("offset") or 0) + int(entries.get("length") or 0)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{path}: tensor {tensor.name} does not say where its numbers lie. Save the model again with "
            "onnx.save_model."
        ) from error
    if not file.is_relative_to(folder):
        raise ArtifactError(
            f"{path}: tensor {tensor.name} lies in {file}, outside the model's folder. "
            "Weight files must lie beside the model; save it again with onnx.save_model."
        )
    if not file.is_file() or file.stat().st_size < needed:
        raise ArtifactError(
            f"{path}: the weight file {file.name} is missing or too short. "
            "Copy it into the folder of the model; the .onnx file alone does not hold the weights."
        )
