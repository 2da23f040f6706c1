import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saq_qat_runtime.bundle.files import sha256
from saq_qat_runtime.bundle.gate import CONSTANT_COMPARISON
from saq_qat_runtime.bundle.manifest import (
    ComparisonRecord,
    FileRecord,
    Gate,
    Manifest,
    TensorRecord,
    TensorSpec,
)
from saq_qat_runtime.errors import ModelError
from tests.runtime.bundles import build_manifest

RECORD = FileRecord("model.onnx", sha256(b""), 0)
MANIFEST = build_manifest(RECORD, replace(RECORD, name="golden.npz"), replace(RECORD, name="expected.csv"))


def edited(change: Callable[[dict[str, Any]], object]) -> str:
    value = json.loads(MANIFEST.to_json())
    change(value)
    return json.dumps(value)


def comparison(manifest: dict[str, Any], **values: object) -> None:
    manifest["gate"]["comparisons"][0].update(values)


def another(manifest: dict[str, Any], **values: object) -> None:
    comparisons = manifest["gate"]["comparisons"]
    comparisons.append({**comparisons[0], **values})


def passed_with_any_answers(manifest: dict[str, Any]) -> None:
    comparison(manifest, name="top-1 of codes", mismatches=1000)
    manifest["deploy"]["thresholds"].update(max_flip_rate=1)


def test_survives_its_own_json_and_is_the_same_text_every_time() -> None:
    text = MANIFEST.to_json()
    assert Manifest.from_json(text) == MANIFEST
    assert Manifest.from_json(text).to_json() == text


@given(st.floats(min_value=2.0**-100, max_value=2.0**100, width=32))
def test_a_float32_scale_comes_back_bit_for_bit(scale: float) -> None:
    tensor = replace(MANIFEST.tensors[0], scale=scale)
    read = Manifest.from_json(replace(MANIFEST, tensors=(tensor,)).to_json())
    assert np.float32(read.tensors[0].scale) == np.float32(scale)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda m: m.update(extra=1), r"unknown field 'extra'"),
        (lambda m: m["tensors"][0].update(zero=1), r"tensors\[0\]: unknown field 'zero'"),
        (lambda m: m.pop("labels"), r"missing field 'labels'"),
        (lambda m: m["gate"]["comparisons"][0].pop("hard"), r"gate.comparisons\[0\]: missing field 'hard'"),
        (lambda m: m.update(schema_version=1), r"schema_version 1; this runtime reads 5"),
        (lambda m: m.update(schema_version="1"), r"no schema_version"),
        (lambda m: m["preprocessing"].update(image_size="8"), r"image_size: expected an integer, got '8'"),
        (lambda m: m["preprocessing"].update(image_size=True), r"image_size: expected an integer, got True"),
        (
            lambda m: m["preprocessing"].update(std=[0.2, 0, 0.2]),
            r"preprocessing: std must lie in 1e-06\.\.1e\+06, got 0\.0",
        ),
        (lambda m: m["preprocessing"].update(std=[1e-45] * 3), r"std must lie in .*, got 1e-45"),
        (lambda m: m["preprocessing"].update(std=[1e300] * 3), r"std must lie in .*, got 1e\+300"),
        (lambda m: m["preprocessing"].update(std=[10**400] * 3), r"std\[0\]: must be a finite float, got 1"),
        (lambda m: m["preprocessing"].update(mean=[1e300] * 3), r"mean must lie in .*, got 1e\+300"),
        (lambda m: m["preprocessing"].update(mean=[-1e19] * 3), r"mean must lie in .*, got -1e\+19"),
        (lambda m: m["preprocessing"].update(resize=4), r"resize must be at least image_size"),
        (lambda m: m["preprocessing"].update(image_size=9), r"contradicts preprocessing"),
        (lambda m: m["tensors"][0].update(dtype="int4"), r"dtype: expected 'uint8' or 'int8', got 'int4'"),
        (lambda m: m["tensors"][0].update(code_max=256), r"codes 0\.\.256 of x1 do not fit uint8"),
        (lambda m: m["tensors"][0].update(scale=0), r"scale of x1 must be positive"),
        (lambda m: m["inputs"][0].update(shape=["N", 3, 8, "M"]), r"shape\[3\]: expected 'N', got 'M'"),
        (lambda m: m["inputs"][0].update(shape=["N", 3, "N", 8]), r"sizes must be positive"),
        (lambda m: m.update(labels=["one"]), r"1 labels for outputs"),
        (lambda m: m.update(models={}), r"a bundle needs a model"),
        (lambda m: m["golden"]["file"].update(name="../golden.npz"), r"plain name"),
        (lambda m: m["golden"].update(logits_tolerance=0.0), r"logits_tolerance: expected an object"),
        (lambda m: m["golden"]["logits_tolerance"].update(onnxruntime=-1), r"of onnxruntime must not be neg"),
        (
            lambda m: m["golden"].update(logits_tolerance={}),
            r"tolerance for \[\], models are \['onnxruntime'\]",
        ),
        (lambda m: m["models"]["onnxruntime"].update(sha256="0"), r"64 hexadecimal digits"),
        (lambda m: m["recipe"].update(text="other"), r"another sha256"),
        (
            lambda m: m["gate"]["comparisons"][0].update(passed=False),
            r"cannot pass with failed hard comparisons",
        ),
        (lambda m: m["gate"].update(comparisons=[]), r"cannot pass without a hard comparison"),
        (lambda m: comparison(m, hard=False), r"cannot pass without a hard comparison"),
        (
            lambda m: comparison(m, name=CONSTANT_COMPARISON, compared=1, mismatches=1),
            r"gate: a gate cannot pass without a hard comparison in which nothing may differ",
        ),
        (
            passed_with_any_answers,
            r"gate: a gate cannot pass without a hard comparison in which nothing may differ",
        ),
        (lambda m: m.update(tensors=[]), r"integer layers need tensors that hold their codes"),
        (
            lambda m: comparison(m, mismatches=5),
            r"hard comparison .* cannot pass .* got 5 mismatches of 1000",
        ),
        (lambda m: comparison(m, compared=0), r"hard comparison .* cannot pass with nothing"),
        (lambda m: comparison(m, mismatches=-1), r"must not be negative, got -1 mismatches"),
        (lambda m: comparison(m, compared=-1), r"must not be negative, got 0 mismatches of -1"),
        (
            lambda m: comparison(m, name="top-1 of x", compared=9, mismatches=10),
            r"more mismatches than values",
        ),
        (
            lambda m: another(m, name="top-1 of x", mismatches=51),
            r"51 of 1000 answers .*max_flip_rate is 0.05",
        ),
        (lambda m: m["gate"].update(allowed_failed=True), r"cannot be one that was allowed to fail"),
        (lambda m: m["golden"]["logits_tolerance"].update(onnxruntime=1e9), r"nor above 1e\+06, got 1"),
        (lambda m: m.update(layers=[]), r"a bundle needs a layer"),
        (lambda m: m["layers"][0].update(name="\ud800"), r"name '\\ud800' of a layer must be text"),
        (lambda m: m["layers"][0].update(name=""), r"name '' of a layer must be text, and not empty"),
        (lambda m: m["tensors"][0].update(name="\udfff"), r"name '\\udfff' of a tensor must be text"),
        (lambda m: m["layers"][0].update(input_bits=99), r"bits of layer conv1 must be 2 to 8, got 99"),
        (lambda m: m["layers"][0].update(weight_bits=0), r"bits of layer conv1 must be 2 to 8, got 0"),
        (lambda m: m["layers"][0].update(constant_channels=-1), r"constant_channels of layer conv1"),
        (lambda m: m["sizes"].update(parameters=-1), r"sizes must not be negative, got -1"),
        (lambda m: m["deploy"]["thresholds"].update(max_flip_rate=5), r"max_flip_rate 1, got \(1.0, 5.0\)"),
        (lambda m: m["deploy"]["thresholds"].update(max_top1_drop=101), r"max_top1_drop may be 100 at most"),
        (lambda m: m["labels"].__setitem__(1, ""), r"label '' must be text, and not empty"),
        (lambda m: m["labels"].__setitem__(1, "\ud800"), r"label '\\ud800' must be text"),
    ],
)
def test_names_what_is_wrong(change: Callable[[dict[str, Any]], object], complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint) as caught:
        Manifest.from_json(edited(change))
    assert "export" in str(caught.value).lower()  # the remedy


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "\x00",
        "{",
        '{"schema_version": NaN}',
        '{"schema_version": 1, "schema_version": 1}',
        "[" * 100_000,
        '{"schema_version": ' + "9" * 5000 + "}",
        MANIFEST.to_json().replace("0.05", "1e999"),
    ],
    ids=["empty", "list", "null", "nul", "open", "nan", "duplicate", "deep", "huge integer", "infinite"],
)
def test_refuses_text_that_is_no_manifest(text: str) -> None:
    with pytest.raises(ModelError, match=r"export it again\."):
        Manifest.from_json(text)


@given(st.data())
def test_any_damage_is_a_model_error_or_a_legal_manifest(data: st.DataObject) -> None:
    text = MANIFEST.to_json()
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, min(len(text), start + 40)))
    damaged = text[:start] + data.draw(st.text(max_size=8)) + text[stop:]
    try:
        read = Manifest.from_json(damaged)
    except ModelError:
        return
    assert isinstance(read, Manifest)


def test_answers_may_differ_as_far_as_the_manifest_allows() -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["gate"]["comparisons"] += [
            {**manifest["gate"]["comparisons"][0], "name": name, "compared": compared, "mismatches": differ}
            for name, compared, differ in (
                ("top-1 of a = b", 40, 2),
                ("top-1 of c = d", 0, 0),
                (CONSTANT_COMPARISON, 8, 3),
            )
        ]

    assert len(Manifest.from_json(edited(change)).gate.comparisons) == 4


def test_will_not_write_what_it_would_not_read() -> None:
    with pytest.raises(ModelError, match="cannot be written"):
        replace(MANIFEST, labels=tuple(np.array(["a"] * 5)), name=np.int64(3)).to_json()  # type: ignore[arg-type]  # on purpose
    infinite = replace(MANIFEST.tensors[0], scale=float("inf"))
    with pytest.raises(ModelError, match="cannot be written"):
        replace(MANIFEST, tensors=(infinite,)).to_json()


def test_records_check_themselves() -> None:
    with pytest.raises(ModelError, match="do not fit int8"):
        TensorRecord("x", 8, 0, 255, 0, "int8", 1.0, "codes", False)
    with pytest.raises(ModelError, match="failed hard comparisons"):
        Gate(True, False, (ComparisonRecord("codes", True, False, 10, 1, ""),))
    with pytest.raises(ModelError, match="sizes must be positive"):
        TensorSpec("image", "float32", ("N", 0))


def test_loads_a_bundle(bundle: Path) -> None:
    assert Manifest.load(bundle).name == "tiny"


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "expected.csv"])
def test_finds_every_changed_file(bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(ModelError, match=f"{name} was changed after export"):
        Manifest.load(bundle)
    (bundle / name).write_bytes(content[:-1])
    with pytest.raises(ModelError, match=rf"{name} has \d+ bytes, the manifest says \d+"):
        Manifest.load(bundle)
    (bundle / name).unlink()
    with pytest.raises(ModelError, match=f"{name} is missing"):
        Manifest.load(bundle)


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_refuses_links_out_of_the_folder(bundle: Path, tmp_path: Path, name: str) -> None:
    (bundle / name).rename(tmp_path / "elsewhere")
    (bundle / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=r"outside the bundle"):
        Manifest.load(bundle)


def test_accepts_links_within_the_folder_and_a_linked_folder(bundle: Path, tmp_path: Path) -> None:
    (bundle / "model.onnx").rename(bundle / "blob")
    (bundle / "model.onnx").symlink_to("blob")
    (tmp_path / "latest").symlink_to(bundle)
    assert Manifest.load(tmp_path / "latest").name == "tiny"


@pytest.mark.parametrize(
    "name", ["../model.onnx", "/etc/hosts", "a/b", "..", "", ".hidden", "a\x00b", "\ud800"]
)
def test_refuses_names_that_are_not_plain(name: str) -> None:
    with pytest.raises(ModelError, match=r"plain name"):
        replace(RECORD, name=name)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\xef\xbb\xbf{}"], ids=["not text", "byte order mark"])
def test_refuses_a_manifest_that_is_no_text(bundle: Path, content: bytes) -> None:
    (bundle / "manifest.json").write_bytes(content)
    with pytest.raises(ModelError, match=re.escape(str(bundle / "manifest.json")) + ".*export it again"):
        Manifest.load(bundle)


def test_a_folder_or_a_missing_folder_is_no_bundle(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere: there is no such folder"):
        Manifest.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"empty is no bundle: it has no manifest\.json"):
        Manifest.load(tmp_path / "empty")
    with pytest.raises(ModelError, match=r"model\.onnx is a file"):
        Manifest.load(bundle / "model.onnx")
    shutil.copytree(bundle, tmp_path / "run" / "export")
    with pytest.raises(ModelError, match=r"run is no bundle.*Its bundle is .*run/export"):
        Manifest.load(tmp_path / "run")
    (bundle / "model.onnx").unlink()
    (bundle / "model.onnx").mkdir()
    with pytest.raises(ModelError, match=r"not a regular file\. Copy the whole bundle again"):
        Manifest.load(bundle)
