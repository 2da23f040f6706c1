"""config.pbtxt: what Triton Inference Server must know of one model.

The fields are those of ModelConfig in protobuf/model_config.proto of triton-inference-server/common, written
in protobuf's text format without protobuf.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from saq_qat_runtime.bundle.records import TensorSpec
from saq_qat_runtime.errors import ModelError

__all__ = ["LARGEST_BATCH", "QUEUE_DELAY_MICROSECONDS", "Placement", "TritonModel", "config_text"]

LARGEST_BATCH = 32
"""Of a graph whose batch has no bound of its own."""
QUEUE_DELAY_MICROSECONDS = 1000

_TYPES = {"float32": "TYPE_FP32"}


@dataclass(frozen=True)
class TritonModel:
    """One model of a repository.

    name: of its folder. platform: as Triton calls the engine. file: name of the model's file in a version.
    content: its bytes. largest_batch: that it accepts; None if its batch is fixed.
    inputs, outputs: with the batch first. kind: of instance, "KIND_CPU" or "KIND_GPU".
    remark: what who reads the configuration should know, a line.
    """

    name: str
    platform: str
    file: str
    content: bytes
    largest_batch: int | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    kind: str
    remark: str


@dataclass(frozen=True)
class Placement:
    """Names of files that the configuration speaks of.

    labels: of the classes. warm_up: from an input to the file of its values, in the folder warmup.
    """

    labels: str
    warm_up: dict[str, str]


def config_text(model: TritonModel, placement: Placement) -> str:
    """The text of config.pbtxt; raises ModelError for a tensor of a type that the repository does not use."""
    return "\n".join(_lines(model, placement)) + "\n"


def _lines(model: TritonModel, placement: Placement) -> Iterator[str]:
    batched = model.largest_batch is not None
    yield f"# {model.remark}"
    yield f"name: {_quoted(model.name)}"
    yield f"platform: {_quoted(model.platform)}"
    yield f"default_model_filename: {_quoted(model.file)}"
    yield f"max_batch_size: {model.largest_batch or 0}"
    for spec in model.inputs:
        yield f"input [ {{ {_tensor(spec, batched)} }} ]"
    for spec in model.outputs:
        yield f"output [ {{ {_tensor(spec, batched)} label_filename: {_quoted(placement.labels)} }} ]"
    yield f"instance_group [ {{ kind: {model.kind} count: 1 }} ]"
    if batched:
        yield f"dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_DELAY_MICROSECONDS} }}"
    for batch in sorted({1, model.largest_batch or 1}):
        yield from _warm_up(model.inputs, batch, placement.warm_up, batched)


def _warm_up(
    inputs: tuple[TensorSpec, ...], batch: int, files: dict[str, str], batched: bool
) -> Iterator[str]:
    """A request that the server answers to itself before it calls the model ready."""
    yield "model_warmup [ {"
    yield f"  name: {_quoted(f'batch {batch}')}"
    yield f"  batch_size: {batch}"
    for spec in inputs:
        yield "  inputs {"
        yield f"    key: {_quoted(spec.name)}"
        values = f"{_types(spec, batched)} input_data_file: {_quoted(files[spec.name])}"
        yield f"    value {{ {values} }}"
        yield "  }"
    yield "} ]"


def _tensor(spec: TensorSpec, batched: bool) -> str:
    return f"name: {_quoted(spec.name)} {_types(spec, batched)}"


def _types(spec: TensorSpec, batched: bool) -> str:
    """Type and sizes, without the batch where the server adds it."""
    found = _TYPES.get(spec.dtype)
    if found is None:
        raise ModelError(
            f"tensor {spec.name!r} is {spec.dtype}; a Triton repository is written for {', '.join(_TYPES)}. "
            "Export the bundle again."
        )
    sizes = ", ".join(str(size) for size in (spec.shape[1:] if batched else spec.shape))
    return f"data_type: {found} dims: [ {sizes} ]"


def _quoted(text: str) -> str:
    """A string of protobuf's text format; JSON's escapes are a part of those it knows."""
    return json.dumps(text, ensure_ascii=False)
