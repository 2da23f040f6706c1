"""The engine of a bundle: built as the bundle says, kept only if its layers are int8."""

from dataclasses import replace
from pathlib import Path

import pytest

from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.errors import EngineError, InputError, ResultError
from saq_qat_runtime.report.engine_text import engine_text
from saq_qat_runtime.tensorrt.build import bundle as module
from saq_qat_runtime.tensorrt.build.bundle import add_engine, bundle_options
from saq_qat_runtime.tensorrt.build.engine import BuiltEngine
from saq_qat_runtime.tensorrt.build.options import BuildOptions, WantedFlavour
from saq_qat_runtime.tensorrt.engine_record import Audit, EngineRecord, LayerVerdict
from tests.runtime.bundles import file_record
from tests.runtime.fake_tensorrt import PLAN, record_of
from tests.runtime.workshop import TENSORRT_MODEL, Workshop

INT8 = LayerVerdict("conv1", "Conv", True, True, "conv1 + relu", "")
FLOAT = LayerVerdict("conv2", "Conv", True, False, "conv2", "its engine layer is float")


def builder(monkeypatch: pytest.MonkeyPatch, *layers: LayerVerdict) -> list[tuple[Path, BuildOptions]]:
    """What stands in for the library; gives what it was asked for."""
    asked: list[tuple[Path, BuildOptions]] = []

    def build(source: Path, options: BuildOptions) -> BuiltEngine:
        asked.append((source, options))
        record = record_of(source=file_record(source), audit=Audit("engine inspector", layers))
        return BuiltEngine(PLAN, record, ("a note",))

    monkeypatch.setattr(module, "build_engine", build)
    return asked


def test_options_are_the_bundles_but_for_what_is_asked_for_here(workshop: Workshop) -> None:
    manifest = Manifest.load(workshop.folder)
    assert bundle_options(manifest) == BuildOptions()
    asked = bundle_options(manifest, flavour="tensorrt-rtx", batch=(2, 4, 16), workspace_mib=512)
    assert asked == BuildOptions(flavour="tensorrt-rtx", batch=(2, 4, 16), workspace_mib=512)
    with pytest.raises(InputError, match=r"deploy\.tensorrt\.batch: needs 1 <= minimum"):
        bundle_options(manifest, batch=(4, 2, 16))
    with pytest.raises(InputError, match="needs smallest, usual and largest"):
        bundle_options(manifest, batch=(4, 8))


def test_a_built_engine_lies_in_the_bundle_and_is_described(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = builder(monkeypatch, INT8)
    built = add_engine(workshop.folder, BuildOptions())
    assert asked == [(workshop.folder / TENSORRT_MODEL, BuildOptions())]
    assert (workshop.folder / "model.plan").read_bytes() == PLAN
    assert workshop.open("tensorrt").backend.name == "tensorrt"
    lines = engine_text(workshop.folder, built)
    assert lines[0] == "note: a note"
    assert "1/1 convolutions and products are int8 layers, says the engine inspector" in lines
    assert lines[-1].startswith(f"engine: {workshop.folder / 'model.plan'} (")


def test_an_engine_with_a_float_layer_is_kept_only_on_purpose(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder(monkeypatch, INT8, FLOAT, replace(INT8, node="head", expected=False, integer=False))
    with pytest.raises(
        EngineError, match=r"1 of 3 convolutions(.|\n)*TRT301 conv2: its engine layer is float"
    ):
        add_engine(workshop.folder, BuildOptions())
    assert not (workshop.folder / "model.plan").exists()
    built = add_engine(workshop.folder, BuildOptions(), allow_failed_audit=True)
    lines = engine_text(workshop.folder, built)
    assert "float: conv2: its engine layer is float" in lines
    assert "float, because not quantized: head" in lines


@pytest.mark.parametrize("name", ["model.plan", "model.plan.json"])
@pytest.mark.parametrize("flavour", ["auto", "tensorrt"])
def test_a_file_of_the_users_is_not_replaced_by_an_engine(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, name: str, flavour: WantedFlavour
) -> None:
    asked = builder(monkeypatch, INT8)
    (workshop.folder / name).write_text("mine")
    with pytest.raises(ResultError, match=rf"{name}: .*so the file is yours\. Move it"):
        add_engine(workshop.folder, BuildOptions(flavour=flavour))
    assert (workshop.folder / name).read_text() == "mine"
    assert len(asked) == (flavour == "auto")


def test_an_earlier_engine_is_replaced_even_if_its_record_is_of_another_version(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder(monkeypatch, INT8)
    (workshop.folder / "model.plan").write_text("an earlier engine")
    record = workshop.folder / "model.plan.json"
    record.write_text('{"schema_version": 99, "created_by": "saq-qat-runtime 9.0"}')
    add_engine(workshop.folder, BuildOptions())
    assert (workshop.folder / "model.plan").read_bytes() == PLAN and EngineRecord.load(
        workshop.folder, "model.plan"
    )
