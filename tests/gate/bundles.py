"""Mutants of the bundle: manifest and golden samples that disagree with the file, the plan or the data."""

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from saq_qat_export.bundle.write import Bundle
from saq_qat_runtime.bundle.manifest import FileRecord, LayerRecord, RecipeRecord, TensorRecord
from tests.gate.edits import Array
from tests.gate.harness import Mutant

__all__ = ["MUTANTS"]

Change = Callable[[Bundle], Bundle]


def manifest(**values: Any) -> Change:
    return lambda bundle: replace(bundle, manifest=replace(bundle.manifest, **values))


def tensor(name: str, **changes: Callable[[Any], Any]) -> Change:
    """Fields of one record of the grid table."""

    def change(bundle: Bundle) -> Bundle:
        def changed(record: TensorRecord) -> TensorRecord:
            return replace(record, **{key: new(getattr(record, key)) for key, new in changes.items()})

        records = tuple(changed(r) if r.name == name else r for r in bundle.manifest.tensors)
        return manifest(tensors=records)(bundle)

    return change


def layer(name: str, **changes: Callable[[Any], Any]) -> Change:
    def change(bundle: Bundle) -> Bundle:
        def changed(record: LayerRecord) -> LayerRecord:
            return replace(record, **{key: new(getattr(record, key)) for key, new in changes.items()})

        records = tuple(changed(r) if r.name == name else r for r in bundle.manifest.layers)
        return manifest(layers=records)(bundle)

    return change


def preprocessing(**changes: Callable[[Any], Any]) -> Change:
    def change(bundle: Bundle) -> Bundle:
        old = bundle.manifest.preprocessing
        new = replace(old, **{key: new(getattr(old, key)) for key, new in changes.items()})
        return manifest(preprocessing=new)(bundle)

    return change


def labels_swapped(bundle: Bundle) -> Bundle:
    first, second, *rest = bundle.manifest.labels
    return manifest(labels=(second, first, *rest))(bundle)


def input_renamed(bundle: Bundle) -> Bundle:
    (spec,) = bundle.manifest.inputs
    return manifest(inputs=(replace(spec, name="pixels"),))(bundle)


def golden(**changes: Callable[[Array], Array]) -> Change:
    """Arrays of the golden file, with the digest of the changed file in the manifest."""
    return lambda bundle: arrays_changed(bundle, bundle.manifest.golden.file.name, changes)


def probed(**changes: Callable[[Array], Array]) -> Change:
    """The same of the probes."""

    def change(bundle: Bundle) -> Bundle:
        assert bundle.manifest.probes is not None
        return arrays_changed(bundle, bundle.manifest.probes.file.name, changes)

    return change


def twice(array: Array) -> Array:
    return 2 * array


def arrays_changed(bundle: Bundle, name: str, changes: dict[str, Callable[[Array], Array]]) -> Bundle:
    """The bundle with other arrays in one of its files."""
    with np.load(io.BytesIO(bundle.files[name])) as old:
        arrays: dict[str, Any] = {key: old[key] for key in old.files}
    for key, new in changes.items():
        arrays[key] = new(arrays[key].copy())
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return with_file(bundle, name, buffer.getvalue())


def with_file(bundle: Bundle, name: str, content: bytes) -> Bundle:
    """The bundle with another file of that name, and a manifest that lists it as it is."""
    record = FileRecord(name, hashlib.sha256(content).hexdigest(), len(content))
    old = bundle.manifest
    models = {target: record if model.name == name else model for target, model in old.models.items()}
    sizes = replace(old.sizes, file_bytes={target: model.bytes for target, model in models.items()})
    samples = replace(old.golden, file=record) if old.golden.file.name == name else old.golden
    answers = record if old.expected.name == name else old.expected
    probes = old.probes
    if probes is not None and probes.file.name == name:
        probes = replace(probes, file=record)
    changed = replace(old, models=models, golden=samples, expected=answers, sizes=sizes, probes=probes)
    return Bundle(changed, bundle.files | {name: content})


def expected(change: Callable[[list[str]], list[str]]) -> Change:
    """Lines of expected.csv, its head aside."""

    def changed(bundle: Bundle) -> Bundle:
        name = bundle.manifest.expected.name
        head, *rows = bundle.files[name].decode().splitlines()
        return with_file(bundle, name, "".join(f"{row}\n" for row in (head, *change(rows))).encode())

    return changed


def another_answer(rows: list[str]) -> list[str]:
    start, answer = rows[0].rsplit(",", 1)
    return [f"{start},{(int(answer) + 1) % 2}", *rows[1:]]


def another_label(rows: list[str]) -> list[str]:
    image, label, answer = rows[0].split(",")
    return [f"{image},{(int(label) + 1) % 2},{answer}", *rows[1:]]


def model_changed_afterwards(bundle: Bundle) -> Bundle:
    """One more byte at the end of the file, which any reader of it ignores."""
    content = bundle.files["model.onnx"]
    return with_file(bundle, "model.onnx", content + b"\x2a\x00")


def another_digest(bundle: Bundle) -> Bundle:
    models = {
        t: replace(m, sha256=hashlib.sha256(b"").hexdigest()) for t, m in bundle.manifest.models.items()
    }
    return manifest(models=models)(bundle)


def models_exchanged(bundle: Bundle) -> Bundle:
    """The file for TensorRT under the name of that for ONNX Runtime, and the other way round."""
    one, other = bundle.files["model.onnx"], bundle.files["model.tensorrt.onnx"]
    return with_file(with_file(bundle, "model.onnx", other), "model.tensorrt.onnx", one)


def another_seed(bundle: Bundle) -> Bundle:
    text = bundle.manifest.recipe.text.replace("seed: 0", "seed: 1")
    assert text != bundle.manifest.recipe.text
    return manifest(recipe=RecipeRecord(text, hashlib.sha256(text.encode()).hexdigest()))(bundle)


def wide_tolerance(bundle: Bundle) -> Bundle:
    old = bundle.manifest.golden
    return manifest(golden=replace(old, logits_tolerance=dict.fromkeys(old.logits_tolerance, 1e3)))(bundle)


def one_row_less(bundle: Bundle) -> Bundle:
    return manifest(tensors=bundle.manifest.tensors[:-1])(bundle)


def gate_passed_without(bundle: Bundle) -> Bundle:
    """A verdict of the proof left out."""
    gate = bundle.manifest.gate
    return manifest(gate=replace(gate, comparisons=gate.comparisons[1:]))(bundle)


def cpu(**values: Any) -> Change:
    return lambda bundle: manifest(cpu=replace(bundle.manifest.cpu, **values))(bundle)


def sizes(**values: Any) -> Change:
    return lambda bundle: manifest(sizes=replace(bundle.manifest.sizes, **values))(bundle)


def first_plus_one(values: Array) -> Array:
    values.reshape(-1)[0] += 1
    return values


def next_logit(values: Array) -> Array:
    values[0, 0] = np.nextafter(values[0, 0], np.float32(np.inf))
    return values


def scale_summary(factor: float) -> Callable[[Any], Any]:
    return lambda summary: replace(summary, largest=summary.largest * factor)


_ROWS: tuple[tuple[str, str, Change, str], ...] = (
    (
        "scale of a tensor times 1.0001",
        "cnn",
        tensor("relu", scale=lambda s: s * 1.0001),
        r"scale of tensor relu",
    ),
    ("largest code of a tensor", "cnn", tensor("relu", code_max=lambda c: c + 1), r"maximum of tensor relu"),
    (
        "largest code of pooled codes",
        "cnn",
        tensor("pool", code_max=lambda c: c + 1),
        r"maximum of tensor pool",
    ),
    (
        "smallest code of a tensor",
        "cnn",
        tensor("image", code_min=lambda c: c + 1),
        r"minimum of tensor image",
    ),
    (
        "zero point of a tensor",
        "cnn",
        tensor("image", zero_point=lambda z: z - 1),
        r"zero point of tensor image",
    ),
    ("bits of a tensor", "cnn", tensor("relu", bits=lambda b: 8), r"bits of tensor relu"),
    ("bits of pooled codes", "cnn", tensor("pool", bits=lambda b: 8), r"bits of tensor pool"),
    ("dtype of a tensor", "cnn", tensor("relu", dtype=lambda d: "int8"), r"dtype of tensor relu"),
    ("sign of a tensor", "cnn", tensor("relu", signed=lambda s: True), r"sign of tensor relu"),
    (
        "code tensor of another quantizer",
        "cnn",
        tensor("relu", code_tensor=lambda n: "pool.codes"),
        r"tensors? ",
    ),
    ("a tensor left out", "cnn", one_row_less, r"head_pool"),
    ("bits of a layer", "cnn", layer("mix.0", weight_bits=lambda b: 8), r"weight_bits of layer mix\.0"),
    ("grid of a layer", "cnn", layer("mix.0", weight_grid=lambda g: "-7..7"), r"weight_grid of layer mix\.0"),
    ("scale of a layer", "cnn", layer("mix.0", weight_scale=scale_summary(1.02)), r"weights of layer mix\.0"),
    ("bits of a layer's input", "cnn", layer("mix.0", input_bits=lambda b: 8), r"input_bits of layer mix\.0"),
    (
        "a float layer called integer",
        "cnn",
        layer("mix.0", integer=lambda i: not i),
        r"integer of layer mix\.0",
    ),
    (
        "mean of the preprocessing",
        "cnn",
        preprocessing(mean=lambda m: (m[1], m[0], 0.3)),
        r"preprocessing\.mean",
    ),
    (
        "deviation of the preprocessing",
        "cnn",
        preprocessing(std=lambda s: tuple(v * 1.01 for v in s)),
        r"preprocessing\.std",
    ),
    (
        "channels that became constants",
        "cnn",
        layer("mix.0", constant_channels=lambda n: n + 1),
        r"constant_channels of layer mix\.0 is 1 in the manifest, but 0",
    ),
    ("CPUs it is for", "cnn", cpu(cpu="vnni"), r"cpu\.cpu is 'vnni' in the manifest, but 'any'"),
    ("products over the pair bound", "cnn", cpu(over_pair_bound=("mix.0",)), r"cpu\.over_pair_bound"),
    ("what other CPUs give", "cnn", cpu(elsewhere="other codes"), r"cpu\.elsewhere is 'other codes'"),
    ("number of parameters", "cnn", sizes(parameters=7), r"sizes is Sizes\(parameters=7,"),
    ("bits of all weights", "vit", sizes(theoretical_bits=7), r"sizes is .*theoretical_bits=7"),
    ("resize of the preprocessing", "cnn", preprocessing(resize=lambda r: 37), r"preprocessing\.resize"),
    ("order of the labels", "cnn", labels_swapped, r"order of the labels"),
    ("name of the input", "cnn", input_renamed, r"input of the file"),
    ("recipe of another run", "cnn", another_seed, r"recipe"),
    ("tolerance of the self-test", "cnn", wide_tolerance, r"tolerance"),
    ("a verdict left out", "cnn", gate_passed_without, r"gate"),
    ("digest of the model", "cnn", another_digest, r"sha256 of model\.onnx"),
    ("model changed after its proof", "cnn", model_changed_afterwards, r"not the graph that was proved"),
    ("models exchanged", "cnn", models_exchanged, r"not the graph that was proved"),
    ("expected answer of one image changed", "cnn", expected(another_answer), r"expected\.csv"),
    ("expected answers without the last", "cnn", expected(lambda rows: rows[:-1]), r"expected\.csv"),
    ("expected label of one image changed", "cnn", expected(another_label), r"label of .*expected\.csv"),
    (
        "expected image of another name",
        "cnn",
        expected(lambda rows: [f"x{rows[0]}", *rows[1:]]),
        r"label of x",
    ),
    ("golden logit one float further", "cnn", golden(logits=next_logit), r"'logits'"),
    ("golden code off by one", "cnn", golden(**{"relu.codes": first_plus_one}), r"'relu\.codes'"),
    ("answer to a probe off by one", "cnn", probed(**{"codes/image.codes": first_plus_one}), r"probes\.npz"),
    ("float that a probe gives twice as large", "cnn", probed(**{"floats/logits": twice}), r"probes\.npz"),
    ("ties allowed where there are none", "cnn", tensor("image", ties=lambda _: True), r"ties of tensor"),
    ("golden images in another order", "cnn", golden(inputs=lambda x: x[::-1]), r"'inputs'"),
    (
        "golden code off by one, transformer",
        "vit",
        golden(**{"softmax.codes": first_plus_one}),
        r"'softmax\.codes'",
    ),
    (
        "scale of a tensor times 1.0001, transformer",
        "vit",
        tensor("softmax", scale=lambda s: s * 1.0001),
        r"scale of tensor softmax",
    ),
    ("zero point of int8 codes", "vit", tensor("k", zero_point=lambda z: z + 1), r"zero point of tensor k"),
)

MUTANTS = tuple(Mutant(name, network, "bundle", change, named) for name, network, change, named in _ROWS)
