"""What the server says of its models: metadata and configuration of the protocol, and facts for people."""

from typing import Any

from saq_qat_runtime import __version__
from saq_qat_runtime.bundle.records import TensorSpec
from saq_qat_runtime.serve.model import ServedModel
from saq_qat_runtime.serve.settings import ServeSettings
from saq_qat_runtime.serve.tensors import DATATYPES

__all__ = ["EXTENSIONS", "model_config", "model_facts", "model_metadata", "server_metadata"]

EXTENSIONS = ("binary_tensor_data", "classification", "model_configuration", "parameters")


def server_metadata() -> dict[str, Any]:
    """Name, version and extensions of the server."""
    return {"name": "saq-qat-runtime", "version": __version__, "extensions": list(EXTENSIONS)}


def model_metadata(model: ServedModel, versions: list[str]) -> dict[str, Any]:
    """The protocol's description of a model and its tensors."""
    manifest = model.session.info.manifest
    return {
        "name": model.place.name,
        "versions": versions,
        "platform": _platform(model),
        "inputs": [_tensor(spec) for spec in manifest.inputs],
        "outputs": [_tensor(spec) for spec in manifest.outputs[:1]],
    }


def model_config(model: ServedModel, settings: ServeSettings) -> dict[str, Any]:
    """The model's configuration, with the field names of Triton's model_config.proto."""
    manifest = model.session.info.manifest
    config: dict[str, Any] = {
        "name": model.place.name,
        "platform": _platform(model),
        "backend": model.session.info.backend,
        "default_model_filename": model.session.info.model.name,
        "max_batch_size": settings.max_batch,
        "input": [_configured(spec) for spec in manifest.inputs],
        "output": [_configured(spec) for spec in manifest.outputs[:1]],
        "parameters": {"batches": {"string_value": model.rule.label}},
    }
    if model.rule.together:
        config["dynamic_batching"] = {"max_queue_delay_microseconds": round(settings.batch_delay * 1e6)}
    return config


def model_facts(model: ServedModel) -> dict[str, Any]:
    """What a person wants to know of a model."""
    info = model.session.info
    manifest = info.manifest
    bits = {(layer.weight_bits, layer.input_bits) for layer in manifest.layers if layer.integer}
    return {
        "name": model.place.name,
        "version": model.place.version,
        "sha256": model.place.sha256,
        "engine": f"{info.backend} {info.backend_version}",
        "threads": info.threads,
        "products": model.products,
        "bits": sorted(f"W{weight}A{activation}" for weight, activation in bits),
        "file_bytes": manifest.sizes.file_bytes.get(info.target),
        "float_bytes": manifest.sizes.float_bytes,
        "parameters": manifest.sizes.parameters,
        "image_size": manifest.preprocessing.image_size,
        "labels": len(manifest.labels),
        "proved": manifest.gate.passed,
        "batches": model.rule.label,
        "created_by": manifest.created_by,
    }


def _platform(model: ServedModel) -> str:
    backend = model.session.info.backend
    return f"{backend}_{'plan' if backend.startswith('tensorrt') else 'onnx'}"


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": [-1, *spec.shape[1:]]}


def _configured(spec: TensorSpec) -> dict[str, Any]:
    datatype = f"TYPE_{DATATYPES[spec.dtype]}"
    return {"name": spec.name, "data_type": datatype, "dims": [int(size) for size in spec.shape[1:]]}
