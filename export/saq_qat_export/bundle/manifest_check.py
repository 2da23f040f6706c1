"""What a manifest says, beside its files, the plan and the data: they agree, or nothing is written.

A server computes with the file, and everybody else reads the manifest: how an image becomes the input, what
the classes are called, which grid each tensor lies on. The proof of the graphs says nothing of these. Which
versions wrote the bundle is its writer's word alone.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from saq_qat.errors import GateError, RecipeError
from saq_qat.quant.deploy.integer_modules import IntegerLayer
from saq_qat.quant.plan.plan import Plan
from saq_qat.recipe.load import parse_recipe
from saq_qat.recipe.schema import Recipe, Thresholds
from saq_qat.train.restore import Restored
from saq_qat_export.bundle.expected import labels_by_name
from saq_qat_export.bundle.file_grids import FileGrids, TensorGrid, file_grids
from saq_qat_export.bundle.records import cpu_record, deploy_record, sizes_of, tensor_records
from saq_qat_export.proof.constant_channels import constant_count
from saq_qat_export.proof.lowered import Lowered
from saq_qat_runtime.bundle.expected import Expected
from saq_qat_runtime.bundle.manifest import Manifest, ScaleSummary, TensorRecord
from saq_qat_runtime.errors import ModelError

__all__ = ["Disagreement", "check_manifest", "disagreements"]

_LISTED = 5
_WITH_ZERO_POINTS = frozenset({"onnxruntime", "openvino"})
# stored codes that need no Clip in float, which is how files for these targets bound them
_UNBOUNDED = {"openvino": (0, 255), "tensorrt": (-128, 127)}


@dataclass(frozen=True)
class Disagreement:
    """One field of the manifest, what it says, and what the file, the plan or the data say."""

    where: str
    stated: Any
    found: Any

    def __str__(self) -> str:
        return f"{self.where} is {self.stated!r} in the manifest, but {self.found!r}"


def check_manifest(manifest: Manifest, files: Mapping[str, bytes], lowered: Lowered) -> None:
    """Raises GateError naming the fields that disagree; arguments as of ``disagreements``."""
    found = tuple(disagreements(manifest, files, lowered))
    if found:
        listed = "\n".join(f"  {entry}" for entry in found[:_LISTED])
        more = f"\n  and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        raise GateError(
            "The manifest disagrees with what it describes, so the bundle cannot be trusted:\n"
            f"{listed}{more}\n"
            "Export again; if it comes back, export wrote it wrong."
        )


def disagreements(manifest: Manifest, files: Mapping[str, bytes], lowered: Lowered) -> Iterator[Disagreement]:
    """Every field of the manifest that is not what its files, the plan or the data say.

    Args:
        files: contents of the bundle's files by name, the manifest aside.
        lowered: the run, for the bundle's targets, with the bundle's graphs.
    """
    plan = lowered.plan
    yield from _of_files(manifest, files)
    yield from _of_data(manifest, lowered.restored)
    yield from _of_expected(manifest, files, lowered.restored)
    yield from _of_layers(manifest, plan)
    yield from _of_view(manifest, files, lowered)
    yield from _of_cpu(manifest, lowered)
    for target, model in manifest.models.items():
        if model.name in files:
            grids = file_grids(files[model.name], uint8_in_float=target == "openvino")
            yield from _of_interface(manifest, target, grids)
            yield from _of_tensors(manifest, target, grids, plan)
            yield from _of_weights(manifest, target, grids)


def _compared(where: str, stated: Any, found: Any) -> Iterator[Disagreement]:
    if stated != found:
        yield Disagreement(where, stated, found)


def _of_files(manifest: Manifest, files: Mapping[str, bytes]) -> Iterator[Disagreement]:
    yield from _compared("list of files", sorted(f.name for f in manifest.files()), sorted(files))
    for record in manifest.files():
        content = files.get(record.name, b"")
        yield from _compared(f"size of {record.name}", record.bytes, len(content))
        yield from _compared(f"sha256 of {record.name}", record.sha256, hashlib.sha256(content).hexdigest())


def _of_data(manifest: Manifest, restored: Restored) -> Iterator[Disagreement]:
    images, stated = restored.images.preprocessing, manifest.preprocessing
    for name in ("image_size", "resize", "channels", "mean", "std"):
        yield from _compared(f"preprocessing.{name}", getattr(stated, name), getattr(images, name))
    yield from _compared("order of the labels", tuple(manifest.labels), tuple(restored.images.classes))
    yield from _compared("name", manifest.name, restored.recipe.name)
    try:
        recipe = parse_recipe(manifest.recipe.text, "recipe of the manifest")
    except RecipeError as error:
        yield Disagreement("recipe", str(error), "a recipe that can be read")
        return
    yield from _compared("deploy", manifest.deploy, deploy_record(recipe.deploy))
    if _trained_with(recipe) != _trained_with(restored.recipe):
        yield Disagreement("recipe", "another one", "that of the run")


def _of_expected(
    manifest: Manifest, files: Mapping[str, bytes], restored: Restored
) -> Iterator[Disagreement]:
    """Images and their labels; the answers beside them are the proof's affair."""
    name = manifest.expected.name
    try:
        expected = Expected.from_csv(files.get(name, b""), len(manifest.labels), name)
    except ModelError as error:
        yield Disagreement(name, str(error), "a file that can be read")
        return
    labels = labels_by_name(restored)
    for image, label in zip(expected.images, expected.labels, strict=True):
        yield from _compared(f"label of {image} in {name}", label, labels.get(image, "no such image"))


def _trained_with(recipe: Recipe) -> Recipe:
    """Thresholds judge what was trained and may change afterwards."""
    deploy = recipe.deploy.model_copy(update={"thresholds": Thresholds()})
    return recipe.model_copy(update={"deploy": deploy})


def _of_interface(manifest: Manifest, target: str, grids: FileGrids) -> Iterator[Disagreement]:
    for kind, specs, found in (
        ("input", manifest.inputs, grids.inputs),
        ("output", manifest.outputs, grids.outputs),
    ):
        stated = {spec.name: tuple(0 if size == "N" else size for size in spec.shape) for spec in specs}
        yield from _compared(f"{kind} of the file for {target}", stated, found)


def _of_layers(manifest: Manifest, plan: Plan) -> Iterator[Disagreement]:
    planned = tuple(layer.name for layer in plan.layers)
    yield from _compared("list of layers", tuple(layer.name for layer in manifest.layers), planned)
    inputs = {tensor.name: tensor for tensor in plan.tensors}
    for record, layer in zip(manifest.layers, plan.layers, strict=False):
        source = inputs.get(layer.input or "")
        expected = {
            "op": layer.op,
            "weight_bits": layer.bits,
            "weight_grid": layer.grid.describe(),
            "input_bits": None if source is None else source.bits,
            "input_grid": None if source is None else source.grid.describe(),
            "integer": layer.integer,
            "reason": layer.float_reason,
        }
        for name, value in expected.items():
            yield from _compared(f"{name} of layer {layer.name}", getattr(record, name), value)


def _of_view(manifest: Manifest, files: Mapping[str, bytes], lowered: Lowered) -> Iterator[Disagreement]:
    """Channels that are their bias alone, parameters and bits of weights, where ties may turn codes."""
    modules = dict(lowered.view.named_modules())
    for record in manifest.layers:
        module = modules.get(record.name)
        count = constant_count(module) if isinstance(module, IntegerLayer) else 0
        where = f"constant_channels of layer {record.name}"
        yield from _compared(where, record.constant_channels, count)
    for stated, found in zip(manifest.tensors, tensor_records(lowered.view), strict=False):
        yield from _compared(f"ties of tensor {stated.code_tensor}", stated.ties, found.ties)
    sizes = {target: len(files.get(model.name, b"")) for target, model in manifest.models.items()}
    yield from _compared("sizes", manifest.sizes, sizes_of(lowered.view, sizes))


def _of_cpu(manifest: Manifest, lowered: Lowered) -> Iterator[Disagreement]:
    """Of the products over the pair bound, in the file; how many codes they cost is the proof's affair."""
    graph = lowered.shipped.get("onnxruntime")
    products = () if graph is None else graph.over_pair_bound
    found = cpu_record(lowered.restored.recipe.deploy.onnxruntime.cpu, products, None)
    stated = manifest.cpu
    yield from _compared("cpu.cpu", stated.cpu, found.cpu)
    yield from _compared("cpu.over_pair_bound", stated.over_pair_bound, found.over_pair_bound)
    start, _, end = found.elsewhere.partition(";")
    if not (stated.elsewhere.startswith(start) and stated.elsewhere.endswith(end)):
        yield Disagreement("cpu.elsewhere", stated.elsewhere, found.elsewhere)


def _of_tensors(manifest: Manifest, target: str, grids: FileGrids, plan: Plan) -> Iterator[Disagreement]:
    records = {record.code_tensor: record for record in manifest.tensors}
    where = f"tensors of codes in the file for {target}"
    if target in _WITH_ZERO_POINTS:
        yield from _compared(where, sorted(records), sorted(grids.tensors))
    else:  # products of activations may stay float there
        yield from _compared(where, [], sorted(set(grids.tensors) - set(records)))
    bits = {tensor.name: tensor.bits for tensor in plan.tensors}
    with_offset = {tensor.name for tensor in plan.tensors if tensor.offset}
    for name, grid in grids.tensors.items():
        if name in records:
            record = records[name]
            yield from _compared(f"name of tensor {name}", record.name, name.removesuffix(".codes"))
            source = records.get(grid.pooled or "")
            expected = bits.get(record.name, record.bits if source is None else source.bits)
            yield from _compared(f"bits of tensor {name}", record.bits, expected)
            yield from _of_tensor(record, target, grid, has_offset=record.name in with_offset)


def _of_tensor(
    record: TensorRecord, target: str, grid: TensorGrid, *, has_offset: bool
) -> Iterator[Disagreement]:
    """A number that is subtracted before codes are made is an offset if the plan has one there."""
    name, zero = f"tensor {record.code_tensor}", record.zero_point
    stated = float(np.float32(record.scale))
    same = grid.scale in (stated, stated if target in _WITH_ZERO_POINTS else float(np.float16(stated)))
    if not same:
        yield Disagreement(f"scale of {name}", stated, grid.scale)
    yield from _compared(f"sign of {name}", record.signed, record.code_min < zero)
    if target in _WITH_ZERO_POINTS:
        yield from _compared(f"zero point of {name}", zero, grid.zero_point)
        yield from _compared(f"dtype of {name}", record.dtype, grid.dtype)
        if grid.pooled is None:
            yield from _compared(f"offset of {name}", record.offset, grid.offset if has_offset else None)
    else:
        zero = 0
    shift = record.zero_point - zero
    if (record.code_min - shift, record.code_max - shift) == _UNBOUNDED.get(target):
        return  # needs no Clip in float: one that stands there is the network's own
    for what, bound, found in (
        ("minimum", record.code_min, grid.minimum),
        ("maximum", record.code_max, grid.maximum),
    ):
        if found is not None:
            yield from _compared(f"{what} of {name}", bound - shift, found)


def _of_weights(manifest: Manifest, target: str, grids: FileGrids) -> Iterator[Disagreement]:
    """Scales of float32 files; float16 may share a power of two with the codes otherwise."""
    for record in manifest.layers:
        scales = grids.weight_scales.get(f"{record.name}.weight", [])
        found = [
            ScaleSummary(s.size, float(s.min()), float(s.max())) for s in scales if s.dtype == np.float32
        ]
        if found and record.weight_scale not in found:
            stated = None if record.weight_scale is None else asdict(record.weight_scale)
            where = f"scale of the weights of layer {record.name} ({target})"
            yield Disagreement(where, stated, asdict(found[0]))
