"""Pretrained weights: what fits is loaded, what does not is listed, and code in a file never runs."""

import logging
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from saq_qat.errors import ArtifactError
from saq_qat.models import build_model, load_pretrained
from saq_qat.recipe.schema import Model


class Network(nn.Module):
    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
        self.head = nn.Linear(2, classes)


@pytest.fixture
def source() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {key: value.clone() for key, value in Network().state_dict().items()}


class Canary:
    """Unpickling it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.path),)


def assert_loaded(network: nn.Module, source: dict[str, Tensor]) -> None:
    for key, value in network.state_dict().items():
        assert torch.equal(value, source[key]), key


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.model.", "net.encoder."])
def test_pth_is_unwrapped(
    source: dict[str, Tensor], wrapper: str | None, prefix: str, tmp_path: Path
) -> None:
    content: object = {prefix + key: value for key, value in source.items()}
    torch.save({wrapper: content, "epoch": 3} if wrapper else content, tmp_path / "w.pth")
    network = Network()
    report = load_pretrained(network, tmp_path / "w.pth")
    assert report.loaded == len(source)
    assert_loaded(network, source)


@pytest.mark.parametrize("ending", ["pt", "th", "bin", "ckpt", "tar"])
def test_files_of_torch_save_have_many_endings(
    source: dict[str, Tensor], ending: str, tmp_path: Path
) -> None:
    torch.save({"state_dict": source}, tmp_path / f"w.{ending}")
    assert load_pretrained(Network(), tmp_path / f"w.{ending}").loaded == len(source)


def test_a_message_says_which_keys_matched_under_which_prefix(
    source: dict[str, Tensor], tmp_path: Path
) -> None:
    weights = {f"model.{key}": value for key, value in source.items() if key != "head.bias"}
    torch.save(weights | {"criterion.weight": torch.ones(2)}, tmp_path / "w.pth")
    with pytest.raises(ArtifactError) as refused:
        load_pretrained(Network(), tmp_path / "w.pth")
    told = str(refused.value)
    assert f"{len(source) - 1} tensors that match under 'model.'" in told
    assert "1 missing: head.bias" in told and "1 unexpected: criterion.weight" in told


def test_a_prefix_that_is_the_networks_own_is_kept(tmp_path: Path) -> None:
    network = nn.Sequential(OrderedDict(model=nn.Linear(2, 2)))
    torch.save(network.state_dict(), tmp_path / "w.pth")
    assert load_pretrained(network, tmp_path / "w.pth").loaded == 2


def test_safetensors_of_a_float_run_load_through_the_recipe(tmp_path: Path) -> None:
    torch.manual_seed(5)
    trained = build_model(Model(name="resnet20"), 10).state_dict()
    path = tmp_path / "checkpoints" / "last" / "model.safetensors"
    path.parent.mkdir(parents=True)
    save_file(trained, path)
    assert_loaded(build_model(Model(name="resnet20", pretrained=str(path)), 10), trained)


def test_missing_unexpected_and_misshapen_keys_are_listed_at_once(
    source: dict[str, Tensor], tmp_path: Path
) -> None:
    source["body.0.weight"] = torch.zeros(9, 3, 1, 1)
    source["stranger"] = source.pop("body.1.bias")
    torch.save(source, tmp_path / "w.pth")
    network = Network()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(ArtifactError) as caught:
        load_pretrained(network, tmp_path / "w.pth")
    for told in (
        "1 missing: body.1.bias",
        "1 unexpected: stranger",
        "file [9, 3, 1, 1], network [2, 3, 1, 1]",
    ):
        assert told in str(caught.value)
    assert_loaded(network, before)


def test_another_head_needs_pretrained_strict_false(source: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(source, tmp_path / "w.pth")
    with pytest.raises(ArtifactError, match="pretrained_strict: false"):
        load_pretrained(Network(classes=7), tmp_path / "w.pth")


def test_without_strict_the_head_is_skipped_logged_and_reported(
    source: dict[str, Tensor], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source["stranger"] = torch.zeros(1)
    torch.save(source, tmp_path / "w.pth")
    network = Network(classes=7)
    head = network.head.weight.clone()
    with caplog.at_level(logging.WARNING):
        report = load_pretrained(network, tmp_path / "w.pth", strict=False)
    assert set(report.mismatched) == {"head.weight", "head.bias"}
    assert report.unexpected == ("stranger",)
    assert report.missing == ()
    assert torch.equal(network.get_parameter("body.0.weight"), source["body.0.weight"])
    assert torch.equal(network.head.weight, head)
    assert "head.weight" in caplog.text and "stranger" in caplog.text


def test_without_strict_the_body_must_still_match(source: dict[str, Tensor], tmp_path: Path) -> None:
    del source["body.0.weight"]
    torch.save(source, tmp_path / "w.pth")
    with pytest.raises(ArtifactError, match=r"body\.0\.weight"):
        load_pretrained(Network(), tmp_path / "w.pth", strict=False)


def test_step_counters_may_be_absent(source: dict[str, Tensor], tmp_path: Path) -> None:
    del source["body.1.num_batches_tracked"]
    torch.save(source, tmp_path / "w.pth")
    assert load_pretrained(Network(), tmp_path / "w.pth").missing == ()


@pytest.mark.parametrize("legacy", [True, False])
def test_code_in_a_pickle_is_refused_and_not_run(legacy: bool, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    path = tmp_path / "w.pth"
    if legacy:
        path.write_bytes(pickle.dumps({"weight": Canary(canary)}, protocol=2))
    else:
        torch.save({"weight": Canary(canary)}, path)
    with pytest.raises(ArtifactError, match="refused"):
        load_pretrained(Network(), path)
    assert not canary.exists()
    with path.open("rb") as file:
        # The canary is alive: loading without care would have made the folder.
        torch.load(file, weights_only=False) if not legacy else pickle.load(file)
    assert canary.exists()


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04garbage", b"\xff" * 64])
def test_damaged_files_are_artifact_errors(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ArtifactError, match=name):
        load_pretrained(Network(), tmp_path / name)


def test_a_storage_that_is_named_otherwise_than_torch_asserts_is_an_artifact_error(
    source: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(source, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "w.pth").read_bytes()
    keys = sorted({str(value.untyped_storage()._cdata).encode() for value in source.values()}, key=len)
    assert keys[-1] in content
    (tmp_path / "w.pth").write_bytes(content.replace(keys[-1], b"x" * len(keys[-1]), 1))
    with pytest.raises(ArtifactError, match=r"w\.pth"):
        load_pretrained(Network(), tmp_path / "w.pth")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_truncated_files_are_artifact_errors(
    source: dict[str, Tensor], name: str, share: float, tmp_path: Path
) -> None:
    path = tmp_path / name
    if path.suffix == ".pth":
        torch.save(source, path)
    else:
        save_file(source, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ArtifactError, match=name):
        load_pretrained(Network(), path)


def test_other_content_is_described(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "weight": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(ArtifactError, match="'epoch': int"):
        load_pretrained(Network(), tmp_path / "w.pth")


def test_values_that_are_not_finite_are_refused(source: dict[str, Tensor], tmp_path: Path) -> None:
    source["head.bias"][0] = float("nan")
    torch.save(source, tmp_path / "w.pth")
    with pytest.raises(ArtifactError, match=r"finite.*head\.bias"):
        load_pretrained(Network(), tmp_path / "w.pth")


@pytest.mark.parametrize("name", ["absent.pth", "folder", "weights.npz"])
def test_paths_that_are_no_weight_file_are_artifact_errors(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "weights.npz").write_bytes(b"1")
    with pytest.raises(ArtifactError, match=name):
        load_pretrained(Network(), tmp_path / name)
