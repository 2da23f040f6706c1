"""From an ONNX file or message to the graph that the rules read."""

from pathlib import Path

import onnx
import onnx.inliner
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from saq_qat.errors import ArtifactError
from saq_qat_export.lint.structure import check_structure

__all__ = ["prepare", "read_model"]

_MESSAGE_LIMIT = 2**31 - 1


def read_model(path: Path) -> ir.Model:
    """The model of a file, ready for the rules; weights in files beside it stay there.

    Raises:
        ArtifactError: the file cannot be read, is no ONNX model, or lacks its weight files.
    """
    try:
        model = onnx.load_model_from_string(path.read_bytes(), format="protobuf")
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}. Name an ONNX file.") from error
    except DecodeError as error:
        raise ArtifactError(
            f"{path} is no ONNX model: it is not in the protobuf format of ONNX. "
            "Name the .onnx file itself, not an archive, an engine or a checkpoint."
        ) from error
    check_structure(model, str(path))
    for tensor in _tensors(model.graph):
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
    if model.ByteSize() < _MESSAGE_LIMIT:
        try:
            if model.functions:
                model = onnx.inliner.inline_local_functions(model)
            model = onnx.shape_inference.infer_shapes(model, data_prop=True)
        except onnx.shape_inference.InferenceError:
            pass  # the shapes that the file states must do
    try:
        read = ir.serde.deserialize_model(model)
    except ir.serde.SerdeError as error:
        raise ArtifactError(
            f"{where} is a broken ONNX model: {error.__cause__ or error}. Export the network again."
        ) from error
    for tensor in _external(read):
        tensor.base_dir = folder
    return read


def _external(model: ir.Model) -> list[ir.ExternalTensor]:
    values = (value for graph in model.graphs() for value in graph.initializers.values())
    return [value.const_value for value in values if isinstance(value.const_value, ir.ExternalTensor)]


def _tensors(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    tensors = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            tensors += [attribute.t] if attribute.HasField("t") else []
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                tensors += _tensors(inner)
    return tensors


def _check_external(tensor: onnx.TensorProto, path: Path) -> None:
    try:
        info = ExternalDataInfo(tensor)
    except ValueError as error:
        raise ArtifactError(
            f"{path}: tensor {tensor.name} names its weight file wrongly: {error}."
        ) from error
    folder = path.parent.resolve()
    file = (folder / info.location).resolve()
    if not file.is_relative_to(folder):
        raise ArtifactError(
            f"{path}: tensor {tensor.name} lies in {info.location}, outside the model's folder. "
            "Weight files must lie beside the model; save it again with onnx.save_model."
        )
    needed = (info.offset or 0) + (info.length or 0)
    if not file.is_file() or file.stat().st_size < needed:
        raise ArtifactError(
            f"{path}: the weight file {info.location} is missing or too short. "
            "Copy it into the folder of the model; the .onnx file alone does not hold the weights."
        )
