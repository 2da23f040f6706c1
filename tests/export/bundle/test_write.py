"""An older bundle is replaced; what else lies in its folder stays."""

from dataclasses import replace
from pathlib import Path

import pytest

from saq_qat_export.bundle.write import Bundle, write_bundle
from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.tensorrt.engine_record import record_name
from tests.runtime.bundles import build_manifest, file_record
from tests.runtime.fake_tensorrt import PLAN, record_of

NAMES = ("model.onnx", "golden.npz", "expected.csv")


def bundle_of(folder: Path, content: bytes = b"a graph") -> Bundle:
    """Three files with a manifest that lists them, the graph for TensorRT among them."""
    folder.mkdir(parents=True)
    files = {**dict.fromkeys(NAMES, b"its content"), "model.tensorrt.onnx": content}
    for name, text in files.items():
        (folder / name).write_bytes(text)
    manifest = build_manifest(*(file_record(folder / name) for name in NAMES))
    models = {**manifest.models, "tensorrt": file_record(folder / "model.tensorrt.onnx")}
    changed = manifest.__class__(
        **{
            **vars(manifest),
            "models": models,
            "golden": manifest.golden.__class__(manifest.golden.file, dict.fromkeys(models, 0.0)),
        }
    )
    return Bundle(changed, files)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A bundle with an engine of its graph, and with files of the user's own."""
    folder = tmp_path / "export"
    write_bundle(bundle_of(tmp_path / "first"), folder)
    source = Manifest.load(folder).models["tensorrt"]
    (folder / "model.plan").write_bytes(PLAN)
    (folder / record_name("model.plan")).write_text(record_of(source=source).to_json())
    (folder / "NOTES.txt").write_text("ask Ada before you replace this")
    (folder / "charts").mkdir()
    (folder / "charts" / "a.svg").write_text("<svg/>")
    (folder / "link").symlink_to("NOTES.txt")
    return folder


def test_files_of_the_user_and_an_engine_of_the_same_graph_stay(exported: Path, tmp_path: Path) -> None:
    write_bundle(bundle_of(tmp_path / "again"), exported)
    assert (exported / "NOTES.txt").read_text() == "ask Ada before you replace this"
    assert (exported / "charts" / "a.svg").is_file()
    assert (exported / "link").is_symlink()
    assert (exported / "model.plan").read_bytes() == PLAN
    assert (exported / record_name("model.plan")).is_file()


def test_an_engine_of_another_graph_goes(exported: Path, tmp_path: Path) -> None:
    write_bundle(bundle_of(tmp_path / "other", b"another graph"), exported)
    assert not (exported / "model.plan").exists()
    assert not (exported / record_name("model.plan")).exists()
    assert (exported / "NOTES.txt").is_file()


def test_a_graph_for_a_target_that_is_no_more_goes(exported: Path, tmp_path: Path) -> None:
    before = bundle_of(tmp_path / "again")
    fewer = {target: model for target, model in before.manifest.models.items() if target != "tensorrt"}
    tolerances = dict.fromkeys(fewer, 0.0)
    golden = replace(before.manifest.golden, logits_tolerance=tolerances)
    files = {name: content for name, content in before.files.items() if name != "model.tensorrt.onnx"}
    write_bundle(Bundle(replace(before.manifest, models=fewer, golden=golden), files), exported)
    assert not (exported / "model.tensorrt.onnx").exists()


def test_a_file_that_no_manifest_names_is_the_users_whatever_its_name(exported: Path, tmp_path: Path) -> None:
    (exported / "model.openvino.onnx").write_bytes(b"made by hand")
    write_bundle(bundle_of(tmp_path / "again"), exported)
    assert (exported / "model.openvino.onnx").read_bytes() == b"made by hand"


def test_a_record_of_an_engine_that_lacks_fields_is_no_obstacle(exported: Path, tmp_path: Path) -> None:
    record = exported / record_name("model.plan")
    record.write_text('{"schema_version": 1, "created_by": "saq-qat-runtime 0"}')
    write_bundle(bundle_of(tmp_path / "again"), exported)
    assert not (exported / "model.plan").exists() and not record.exists()
    Manifest.load(exported)


@pytest.mark.parametrize("record", [None, "{", '{"schema_version": 1, "created_by": "me"}'])
def test_an_engine_without_a_record_of_ours_is_the_users(
    exported: Path, tmp_path: Path, record: str | None
) -> None:
    beside = exported / record_name("model.plan")
    beside.unlink()
    if record is not None:
        beside.write_text(record)
    write_bundle(bundle_of(tmp_path / "other", b"another graph"), exported)
    assert (exported / "model.plan").read_bytes() == PLAN
    assert record is None or beside.read_text() == record
