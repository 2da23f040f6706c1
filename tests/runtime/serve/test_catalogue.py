"""Models are found in folders, and replaced without a gap."""

import dataclasses
import shutil
import threading
import time
from pathlib import Path

import pytest

from saq_qat_runtime.errors import ClosedError, ModelError, SessionError
from saq_qat_runtime.serve.catalogue import Catalogue, find_places
from saq_qat_runtime.serve.model import ModelPlace, ServedModel, load_model
from saq_qat_runtime.serve.refusals import NotFoundError, OverloadError
from saq_qat_runtime.serve.settings import ServeSettings
from tests.runtime.networks import images
from tests.runtime.serve.engines import Remember

SETTINGS = ServeSettings(threads=1, max_batch=2)


def load(place: ModelPlace) -> ServedModel:
    return load_model(place, SETTINGS, Remember())


def put(bundle: Path, folder: Path) -> None:
    shutil.copytree(bundle, folder)


def rename(folder: Path, name: str) -> None:
    """Make it another bundle, with the same numbers."""
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"name": "tiny"', f'"name": "{name}"'))


@pytest.fixture
def root(tmp_path: Path, integer_bundle: Path) -> Path:
    put(integer_bundle, tmp_path / "models" / "a" / "1")
    put(integer_bundle, tmp_path / "models" / "a" / "12")
    put(integer_bundle, tmp_path / "models" / "b")
    (tmp_path / "models" / "notes").mkdir()
    (tmp_path / "models" / "a" / "draft").mkdir()
    return tmp_path / "models"


def test_a_bundle_by_itself_is_the_model_its_manifest_names(integer_bundle: Path) -> None:
    (place,) = find_places(integer_bundle)
    assert (place.name, place.version, place.folder) == ("tiny", "1", integer_bundle)


def test_a_name_that_fits_no_address_is_changed(integer_bundle: Path, tmp_path: Path) -> None:
    put(integer_bundle, tmp_path / "x")
    rename(tmp_path / "x", "../my model?")
    (place,) = find_places(tmp_path / "x")
    assert place.name == "my-model"


def test_a_folder_holds_models_and_versions(root: Path) -> None:
    assert [(place.name, place.version) for place in find_places(root)] == [
        ("a", "1"),
        ("a", "12"),
        ("b", "1"),
    ]


def test_two_bundles_that_claim_one_version_are_refused(root: Path, integer_bundle: Path) -> None:
    put(integer_bundle, root / "b" / "1")
    with pytest.raises(ModelError, match="version 1 twice"):
        find_places(root)


@pytest.mark.parametrize("missing", ["", "nothing"])
def test_a_folder_without_models_says_what_was_expected(tmp_path: Path, missing: str) -> None:
    with pytest.raises(ModelError, match=r"holds no model|is no folder"):
        find_places(tmp_path / missing)


def test_the_highest_version_answers_unless_one_is_named(root: Path) -> None:
    catalogue = Catalogue(root, load)
    with pytest.raises(OverloadError, match="being loaded"):
        catalogue.find("a")
    assert not catalogue.ready
    catalogue.reload()
    assert catalogue.ready
    assert catalogue.find("a").place.version == "12"
    assert catalogue.find("a", "1").place.version == "1"
    with pytest.raises(NotFoundError, match="Served: a, b"):
        catalogue.find("c")
    with pytest.raises(NotFoundError, match="Served: 1, 12"):
        catalogue.find("a", "2")
    catalogue.close()


def test_a_reload_loads_what_is_new_closes_what_is_gone_and_leaves_the_rest(
    root: Path, integer_bundle: Path
) -> None:
    catalogue = Catalogue(root, load)
    catalogue.reload()
    before = {version: catalogue.find("a", version) for version in ("1", "12")}
    gone = catalogue.find("b")
    rename(root / "a" / "12", "other")
    put(integer_bundle, root / "c")
    shutil.rmtree(root / "b")
    changes = catalogue.reload()
    assert (changes.loaded, changes.closed, changes.kept) == (("a/12", "c/1"), ("a/12", "b/1"), ("a/1",))
    assert catalogue.find("a", "1") is before["1"]
    assert catalogue.find("a", "12") is not before["12"]
    assert not gone.healthy
    with pytest.raises(NotFoundError):
        catalogue.find("b")
    catalogue.close()


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "manifest.json"])
def test_a_model_that_cannot_be_loaded_changes_nothing(root: Path, integer_bundle: Path, name: str) -> None:
    catalogue = Catalogue(root, load)
    catalogue.reload()
    before = catalogue.models
    put(integer_bundle, root / "a" / "13")
    put(integer_bundle, root / "a" / "14")
    damaged = root / "a" / "14" / name
    damaged.write_bytes(damaged.read_bytes()[:-20])
    with pytest.raises(SessionError):
        catalogue.reload()
    assert catalogue.models is before
    assert catalogue.find("a").place.version == "12"
    assert catalogue.ready
    catalogue.close()


def test_who_holds_a_model_keeps_it_until_it_is_done(root: Path) -> None:
    catalogue = Catalogue(root, load)
    catalogue.reload()
    with catalogue.hold("b") as model:
        shutil.rmtree(root / "b")
        reload = threading.Thread(target=catalogue.reload)
        reload.start()
        end = time.monotonic() + 10
        while "b" in catalogue.models and time.monotonic() < end:
            time.sleep(0.01)
        assert "b" not in catalogue.models
        answer = model.submit(images(2), time.monotonic() + 10).result(10)
        assert len(answer.logits) == 2
        assert reload.is_alive()
    reload.join(10)
    assert not reload.is_alive()
    with pytest.raises(ClosedError), model.use():
        pass
    catalogue.close()


def test_an_engine_that_broke_down_is_replaced_by_a_reload(root: Path) -> None:
    catalogue = Catalogue(root, load)
    catalogue.reload()
    broken = catalogue.find("b")
    broken.session._lifetime._fault = "a fault"
    assert not catalogue.healthy
    assert not catalogue.ready
    assert catalogue.reload().loaded == ("b/1",)
    assert catalogue.ready
    catalogue.close()


def test_a_bundle_whose_golden_logits_are_others_is_never_ready(root: Path) -> None:
    import numpy as np

    from saq_qat_runtime.bundle.manifest import Manifest
    from tests.runtime.bundles import file_record

    folder = root / "b"
    manifest = Manifest.load(folder)
    with np.load(folder / "golden.npz") as golden:
        changed_arrays = {**golden, "logits": golden["logits"] + 1}
    np.savez(folder / "golden.npz", **changed_arrays)
    golden_file = dataclasses.replace(manifest.golden, file=file_record(folder / "golden.npz"))
    changed = dataclasses.replace(manifest, golden=golden_file)
    (folder / "manifest.json").write_text(changed.to_json())
    catalogue = Catalogue(root, load)
    with pytest.raises(SessionError, match="golden logits"):
        catalogue.reload()
    assert not catalogue.ready


def test_a_reload_tells_of_a_file_that_changed_under_a_model_that_goes_on(root: Path) -> None:
    catalogue = Catalogue(root, load)
    catalogue.reload()
    with (root / "b" / "model.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(SessionError, match=r"model\.onnx has"):
        catalogue.reload()
    assert catalogue.ready
    catalogue.close()


def test_an_error_that_nobody_foresaw_leaves_no_model_behind(root: Path) -> None:
    loaded: list[ServedModel] = []

    def fail_at_the_third(place: ModelPlace) -> ServedModel:
        if len(loaded) == 2:
            raise MemoryError
        loaded.append(load(place))
        return loaded[-1]

    catalogue = Catalogue(root, fail_at_the_third)
    with pytest.raises(MemoryError):
        catalogue.reload()
    assert not catalogue.models
    assert not any(model.healthy for model in loaded)
