"""The folder that ships: model, manifest and golden samples, written whole or not at all."""

import hashlib
import io
import shutil
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from saq_qat import __version__
from saq_qat.quant.integer_modules import IntegerLayer, Quantize
from saq_qat.quant.plan import LayerPlan, Plan
from saq_qat.recipe.load import dump_recipe
from saq_qat.train.restore import Restored
from saq_qat_export.onnx_graph import INPUT, OUTPUT, OnnxGraph
from saq_qat_export.probe import Probe
from saq_qat_export.proof import Proof
from saq_qat_runtime.manifest import (
    MANIFEST_FILE,
    SCHEMA_VERSION,
    FileRecord,
    Gate,
    Golden,
    LayerRecord,
    Manifest,
    Preprocessing,
    RecipeRecord,
    RungRecord,
    ScaleSummary,
    Sizes,
    TensorRecord,
    TensorSpec,
)

__all__ = ["MODEL_FILE", "Bundle", "make_bundle", "write_bundle"]

MODEL_FILE = "model.onnx"
_GOLDEN_FILE = "golden.npz"
_TARGET = "onnxruntime"
_LOGITS_TOLERANCE = 1e-5
_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Bundle:
    """Files of a bundle by name, and the manifest that lists them."""

    manifest: Manifest
    files: dict[str, bytes]


def make_bundle(
    restored: Restored,
    plan: Plan,
    view: fx.GraphModule,
    graph: OnnxGraph,
    proof: Proof,
    golden_images: npt.NDArray[np.float32],
    *,
    allow_failed_gate: bool,
) -> Bundle:
    """Everything that ships of one checkpoint; the same bytes for the same checkpoint and package versions.

    Args:
        golden_images: float32 (N, C, H, W) whose codes and logits a server checks before it reports ready.
    """
    files = {MODEL_FILE: graph.content, _GOLDEN_FILE: _golden(graph, golden_images)}
    records = {
        name: FileRecord(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()
    }
    images = restored.images
    settings = images.preprocessing
    text = dump_recipe(restored.recipe)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=restored.recipe.name,
        created_by=f"saq-qat {__version__}",
        inputs=(
            TensorSpec(INPUT, "float32", ("N", settings.channels, settings.image_size, settings.image_size)),
        ),
        outputs=(TensorSpec(OUTPUT, "float32", ("N", len(images.classes))),),
        preprocessing=Preprocessing(
            settings.image_size, settings.resize, settings.channels, settings.mean, settings.std
        ),
        labels=images.classes,
        models={_TARGET: records[MODEL_FILE]},
        golden=Golden(records[_GOLDEN_FILE], _LOGITS_TOLERANCE),
        layers=tuple(_layer_record(layer, plan, view) for layer in plan.layers),
        tensors=_tensor_records(view),
        sizes=_sizes(view, len(graph.content)),
        gate=_gate(proof, allow_failed_gate=allow_failed_gate),
        recipe=RecipeRecord(text, hashlib.sha256(text.encode()).hexdigest()),
        versions={name: version(name) for name in _PACKAGES},
    )
    return Bundle(manifest, files)


def write_bundle(bundle: Bundle, folder: Path) -> None:
    """Write beside ``folder`` and move into place, replacing an older bundle; nothing half-written stays behind."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        fresh = Path(scratch) / "new"
        fresh.mkdir()
        for name, content in bundle.files.items():
            (fresh / name).write_bytes(content)
        (fresh / MANIFEST_FILE).write_text(bundle.manifest.to_json(), encoding="utf-8")
        if folder.exists():
            shutil.move(folder, Path(scratch) / "old")
        fresh.rename(folder)


def _golden(graph: OnnxGraph, images: npt.NDArray[np.float32]) -> bytes:
    codes, logits = Probe(graph).run(images)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, inputs=images, logits=logits, **{name: codes[name] for name in sorted(codes)})  # type: ignore[arg-type]
    return buffer.getvalue()


def _layer_record(layer: LayerPlan, plan: Plan, view: fx.GraphModule) -> LayerRecord:
    module = view.get_submodule(layer.name)
    source = next((tensor for tensor in plan.tensors if tensor.name == layer.input), None)
    scales = module.weight_scale if isinstance(module, IntegerLayer) else None
    return LayerRecord(
        name=layer.name,
        op=layer.op,
        weight_bits=layer.bits,
        weight_grid=layer.grid.describe(),
        weight_scale=None if scales is None else _summary(scales),
        input_bits=None if source is None else source.bits,
        input_grid=None if source is None else source.grid.describe(),
        integer=layer.integer,
        reason=layer.float_reason,
    )


def _summary(scales: torch.Tensor) -> ScaleSummary:
    return ScaleSummary(scales.numel(), float(scales.min()), float(scales.max()))


def _tensor_records(view: fx.GraphModule) -> tuple[TensorRecord, ...]:
    found = []
    for node in view.graph.nodes:
        module = view.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(module, Quantize):
            name = str(node.target).removeprefix("quantizers.")
            low, high = module.minimum + module.zero_point, module.maximum + module.zero_point
            found.append(
                TensorRecord(
                    name=name,
                    bits=module.bits,
                    code_min=low,
                    code_max=high,
                    zero_point=module.zero_point,
                    dtype="uint8",
                    scale=float(module.scale),
                    code_tensor=f"{name}.codes",
                    signed=module.minimum < 0,
                )
            )
    return tuple(found)


def _sizes(view: fx.GraphModule, file_bytes: int) -> Sizes:
    """Weights at their trained bits, biases and scales at 32; other parameters (a lone BatchNorm) at 32."""
    parameters, bits = 0, 0
    for module in view.modules():
        if isinstance(module, IntegerLayer):
            parameters += module.weight.numel() + module.bias.numel()
            bits += module.weight.numel() * module.bits + 32 * (
                module.bias.numel() + module.weight_scale.numel()
            )
        elif not list(module.children()) and not isinstance(module, Quantize):
            own = sum(t.numel() for t in (*module.parameters(), *module.buffers()))
            parameters, bits = parameters + own, bits + 32 * own
    return Sizes(parameters, 4 * parameters, bits, {_TARGET: file_bytes})


def _gate(proof: Proof, *, allow_failed_gate: bool) -> Gate:
    rungs = tuple(
        RungRecord(rung.name, rung.hard, rung.passed, rung.compared, rung.mismatches, rung.detail)
        for rung in proof.rungs
    )
    return Gate(proof.passed, allow_failed_gate and not proof.passed, rungs)
