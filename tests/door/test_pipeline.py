"""From a run, and from a network of the caller's own, to a bundle: one proof, which finds the same faults."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import saq_qat as sq
from saq_qat.errors import ArtifactError, DataError, GateError, RecipeError
from saq_qat.recipe.load import parse_recipe
from saq_qat.recipe.schema import Deploy, Thresholds
from saq_qat_export.proof.prove import ProofSize
from saq_qat_runtime.session import Session
from tests.train.small_network import SmallNetwork
from tests.train.small_recipe import SMALL_RECIPE, small_recipe

SIDE = 8
LOOSE = Deploy(thresholds=Thresholds(max_top1_drop=100.0, max_flip_rate=1.0))
"""A few images of noise mean nothing."""
SIZE = ProofSize(2, None)


def labelled(count: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, SIDE, SIDE, generator=generator), torch.arange(count) % 4


def own_network() -> sq.QuantizedNetwork:
    torch.manual_seed(0)
    return sq.quantize(SmallNetwork(4), labelled()[0], weight_bits=4, deploy=LOOSE)


@pytest.fixture(scope="module")
def net() -> sq.QuantizedNetwork:
    return own_network()


@pytest.fixture(scope="module")
def bundle(net: sq.QuantizedNetwork, tmp_path_factory: pytest.TempPathFactory) -> sq.Bundle:
    folder = tmp_path_factory.mktemp("own") / "bundle"
    names = ("ant", "bee", "cat", "dog")
    return sq.export(
        net, labelled(), folder=folder, classes=names, mean=(0.1, 0.2, 0.3), std=(0.9, 0.8, 0.7), size=SIZE
    )


def test_a_bundle_of_an_own_network_passed_the_whole_proof_and_runs(
    net: sq.QuantizedNetwork, bundle: sq.Bundle
) -> None:
    names = [comparison.name for comparison in bundle.proof.comparisons if comparison.hard]
    assert "numbers of the graph for onnxruntime = checkpoint" in names
    assert "fake-quant network in float64 = deploy view before biases are rounded" in names
    assert bundle.proof.passed and bundle.manifest.gate.passed
    images, _ = labelled()
    with Session.load(bundle.folder) as session:
        session.self_test()
        view = sq.lower(net)
        np.testing.assert_allclose(session(images.numpy()), view(images).detach().numpy(), atol=1e-5)


def test_it_says_what_it_is_and_how_pictures_become_its_input(bundle: sq.Bundle) -> None:
    manifest = bundle.manifest
    assert (manifest.name, manifest.labels) == ("SmallNetwork", ("ant", "bee", "cat", "dog"))
    own = manifest.preprocessing
    assert (own.image_size, own.channels, own.mean, own.std) == (8, 3, (0.1, 0.2, 0.3), (0.9, 0.8, 0.7))
    recipe = parse_recipe(manifest.recipe.text, "manifest")
    assert (recipe.model.name, recipe.data.kind) == ("tests.train.small_network:SmallNetwork", "memory")


def test_what_was_exported_is_verified_from_its_files(bundle: sq.Bundle) -> None:
    assert sq.verify(bundle, size=SIZE).passed


def test_training_on_after_an_export_does_not_change_what_is_verified(tmp_path: Path) -> None:
    net = own_network()
    bundle = sq.export(net, labelled(), folder=tmp_path / "bundle", size=SIZE)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.5)
    assert sq.verify(bundle, size=SIZE).passed
    other = sq.export(net, labelled(), folder=tmp_path / "bundle", size=SIZE)
    assert other.manifest.checkpoint_sha256 != bundle.manifest.checkpoint_sha256
    with pytest.raises(ArtifactError, match="another network was exported there since"):
        sq.verify(bundle, size=SIZE)


def test_a_weight_that_is_not_the_trained_one_is_found(tmp_path: Path) -> None:
    """The manifest is made to agree with the other file, so that only its numbers can tell."""
    net = own_network()
    bundle = sq.export(net, labelled(), folder=tmp_path / "bundle", size=SIZE)
    with torch.no_grad():
        net.get_parameter("network.conv.weight").neg_()
    forged = sq.export(net, labelled(), folder=tmp_path / "forged", size=SIZE)
    manifest = json.loads((forged.folder / "manifest.json").read_text())
    manifest["checkpoint_sha256"] = bundle.manifest.checkpoint_sha256
    for file in forged.folder.iterdir():
        (bundle.folder / file.name).write_bytes(file.read_bytes())
    (bundle.folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(GateError, match="its numbers are not those of"):
        sq.verify(bundle, size=SIZE)


def test_a_network_that_integers_cannot_hold_is_not_written(tmp_path: Path) -> None:
    net = own_network()
    with torch.no_grad():
        net.get_parameter("network.head.bias")[0] = 1e9
    with pytest.raises(GateError, match=r"Not proved.*channels that keep their weights"):
        sq.export(net, labelled(), folder=tmp_path / "bundle", size=SIZE)
    assert not (tmp_path / "bundle").exists()
    allowed = sq.export(net, labelled(), folder=tmp_path / "bundle", size=SIZE, allow_failed_gate=True)
    assert not allowed.proof.passed and allowed.manifest.gate.allowed_failed


def test_a_folded_network_is_exported_as_one(tmp_path: Path) -> None:
    folded = sq.fold(own_network())
    bundle = sq.export(folded, labelled(), folder=tmp_path / "bundle", size=SIZE)
    assert bundle.proof.passed


def test_a_network_of_one_channel_ships(tmp_path: Path) -> None:
    torch.manual_seed(0)
    grey = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 3)
    )
    images = torch.rand(6, 1, SIDE, SIDE)
    net = sq.quantize(grey, images, deploy=LOOSE)
    bundle = sq.export(net, (images, torch.zeros(6).long()), folder=tmp_path / "b", name="grey", size=SIZE)
    assert (bundle.manifest.name, bundle.manifest.preprocessing.channels) == ("grey", 1)
    with Session.load(bundle.folder) as session:
        session.self_test()


def test_what_an_own_network_needs_is_asked_for(net: sq.QuantizedNetwork, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="images to prove it on and a folder"):
        sq.export(net, folder=tmp_path)  # type: ignore[call-overload]  # wrong on purpose
    with pytest.raises(DataError, match="gives 4 logits"):
        sq.export(net, labelled(), folder=tmp_path / "b", classes=("a",))
    with pytest.raises(DataError, match="mean and std need 3 numbers"):
        sq.export(net, labelled(), folder=tmp_path / "b", mean=(0.5,))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").touch()
    with pytest.raises(ArtifactError, match="this is no bundle"):
        sq.export(net, labelled(), folder=tmp_path / "mine", size=SIZE)


def test_the_way_of_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(SMALL_RECIPE.strip())
    loose = "deploy.thresholds={max_top1_drop: 100, max_flip_rate: 1}"
    run = sq.train(tmp_path / "recipe.yaml", loose, runs=tmp_path / "runs")
    assert run.folder.parent == tmp_path / "runs/small"
    assert (run.folder / "recipe.yaml").read_text() == SMALL_RECIPE.strip()
    bundle = sq.export(run, size=SIZE)
    assert bundle.folder == run.folder / "export"
    assert sq.verify(bundle, size=SIZE).passed
    assert sq.verify(bundle.folder, size=SIZE).passed
    moved = bundle.folder.rename(tmp_path / "moved")
    with pytest.raises(ArtifactError, match=r"verify\(bundle, run="):
        sq.verify(moved)
    assert sq.verify(moved, run=run.folder, size=SIZE).passed
    with pytest.raises(RecipeError, match="leave images out"):
        sq.export(run.folder, labelled())  # type: ignore[call-overload]  # wrong on purpose


def test_a_recipe_made_in_python_trains_and_takes_no_overrides(tmp_path: Path) -> None:
    recipe = small_recipe("train.stages=[]", "deploy.targets=[]")
    run = sq.train(recipe, runs=tmp_path)
    assert parse_recipe((run.folder / "recipe.yaml").read_text(), "written") == recipe
    with pytest.raises(RecipeError, match="is made already"):
        sq.train(recipe, "seed=1", runs=tmp_path)


def test_what_is_no_source_recipe_or_bundle_is_refused(net: sq.QuantizedNetwork, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"quantize a float one first.*got SmallNetwork"):
        sq.export(SmallNetwork(4), labelled(), folder=tmp_path / "b")  # type: ignore[call-overload]  # wrong on purpose
    with pytest.raises(DataError, match="at least one image"):
        sq.export(net, labelled(0), folder=tmp_path / "b")
    with pytest.raises(RecipeError, match=r"train takes the path of a recipe's file.*got dict"):
        sq.train({"version": 1})  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(RecipeError, match=r"verify takes what export gave.*got QuantizedNetwork"):
        sq.verify(net)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ArtifactError, match="nope: there is no such folder"):
        sq.verify("nope")
