"""Arguments of the calls in Python that are of the wrong kind: typed errors that name them, at once."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import saq_qat as sq
from saq_qat.door.arguments import as_list
from saq_qat.errors import ArtifactError, DataError, RecipeError
from saq_qat_export.proof.prove import ProofSize
from tests.train.small_network import SmallNetwork

SIDE = 8
CLASSES = 4
IMAGES = torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
LABELLED = (IMAGES, torch.arange(4))
EXPORT: tuple[tuple[str, Any, str], ...] = (
    ("allow_failed_gate", "no", "must be true or false"),
    ("allow_failed_gate", 1, "must be true or false"),
    ("tensorrt", "x", "must be true or false"),
    ("checkpoint", "x", "must be 'last' or 'best'"),
    ("size", 1, "ProofSize"),
    ("on_step", None, "callable"),
    ("on_step", 1, "callable"),
    ("classes", [None] * CLASSES, "must be text"),
    ("classes", 5, "must be a list"),
    ("mean", 0.5, "must be a list"),
    ("mean", torch.zeros(3, device="meta"), "must be a list"),
    ("mean", torch.zeros(3).to_sparse(), "must be a list"),
    ("mean", ["a"] * 3, "must be a number"),
    ("mean", [float("nan")] * 3, "must be a finite number"),
    ("mean", [1e39] * 3, "must be at most"),
    ("mean", itertools.repeat("a"), "must be a number"),
    ("std", [0.0] * 3, "must be at least"),
    ("std", [1e-45] * 3, "must be at least"),
    ("resize", "8", "must be a whole number"),
    ("name", 3, "must be text"),
)


@pytest.fixture(scope="module")
def net() -> sq.QuantizedNetwork:
    torch.manual_seed(0)
    return sq.quantize(SmallNetwork(CLASSES), IMAGES)


@pytest.mark.parametrize(
    ("name", "value", "rule"), EXPORT, ids=[f"{name}-{type(value).__name__}" for name, value, _ in EXPORT]
)
def test_an_argument_of_export_obeys_its_rule(
    net: sq.QuantizedNetwork, tmp_path: Path, name: str, value: Any, rule: str
) -> None:
    with pytest.raises(RecipeError, match=rf"^export: {name}(\.0)?: .*{rule}"):
        sq.export(net, LABELLED, **{"folder": tmp_path / "bundle", name: value})
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("folder", [1, b"x", "\0"])
def test_folders_are_paths(net: sq.QuantizedNetwork, tmp_path: Path, folder: Any) -> None:
    with pytest.raises(RecipeError, match=r"export takes the folder .* must be a path"):
        sq.export(net, LABELLED, folder=folder)
    with pytest.raises(RecipeError, match=r"train takes the folder of runs.* must be a path"):
        sq.train(tmp_path / "recipe.yaml", runs=folder)
    with pytest.raises(RecipeError, match=r"verify takes the folder of a run.* must be a path"):
        sq.verify(tmp_path, run=folder)


def test_arguments_of_verify_obey_the_same_rules(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"verify: size: .*ProofSize"):
        sq.verify(tmp_path, size=3)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(RecipeError, match=r"verify: on_step: .*callable"):
        sq.verify(tmp_path, on_step=None)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    ("counts", "named"),
    [
        ((0, 0), "code_images=0, top1_images=0"),
        (("a", None), "code_images='a'"),
        ((1.5, None), r"code_images=1\.5"),
        ((5, -1), "top1_images=-1"),
        ((True, None), "code_images=True"),
        ((None, None), "code_images=None"),
    ],
)
def test_a_proof_is_of_whole_numbers_of_images(counts: tuple[Any, Any], named: str) -> None:
    with pytest.raises(RecipeError, match=f"^ProofSize: .* got {named}"):
        ProofSize(*counts)


@pytest.mark.parametrize("override", [5, None, b"x"])
def test_overrides_are_text(tmp_path: Path, override: Any) -> None:
    with pytest.raises(RecipeError, match=r"^train: overrides\.0: must be text"):
        sq.train(tmp_path / "recipe.yaml", override)


@pytest.mark.parametrize("on_progress", [1, None])
def test_progress_is_told_to_a_function(tmp_path: Path, on_progress: Any) -> None:
    with pytest.raises(RecipeError, match=r"^train: on_progress: .*callable"):
        sq.train(tmp_path / "recipe.yaml", runs=tmp_path / "runs", on_progress=on_progress)
    assert not (tmp_path / "runs").exists()


def test_a_name_that_no_disk_can_hold_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="there is no such folder"):
        sq.verify("x" * 300)
    with pytest.raises(ArtifactError, match="is no run"):
        sq.verify(tmp_path, run="x" * 300)


@pytest.mark.parametrize(
    ("labels", "rule"),
    [
        (torch.zeros(4, dtype=torch.long, device="meta"), "Labels must be a dense tensor"),
        (torch.arange(4).to_sparse(), "Labels must be a dense tensor"),
        (torch.zeros(4, dtype=torch.complex64), "Labels must be whole numbers"),
    ],
    ids=["meta", "sparse", "complex"],
)
def test_labels_must_hold_their_numbers(
    net: sq.QuantizedNetwork, tmp_path: Path, labels: Tensor, rule: str
) -> None:
    with pytest.raises(DataError, match=rule):
        sq.export(net, (IMAGES, labels), folder=tmp_path / "bundle")


def test_arrays_and_tensors_are_lists_of_numbers() -> None:
    assert as_list(torch.zeros(3), 3) == as_list(torch.zeros(3).numpy(), 3) == (0.0,) * 3
    assert as_list(itertools.repeat(1.0), 3) == (1.0,) * 4


@pytest.mark.parametrize("example", [IMAGES.to("meta"), IMAGES.to_sparse()], ids=["meta", "sparse"])
def test_images_must_hold_their_numbers(example: Tensor) -> None:
    with pytest.raises(DataError, match=r"Images must be a dense tensor"):
        sq.quantize(SmallNetwork(CLASSES), example)


def test_batches_that_never_end_are_refused() -> None:
    with pytest.raises(DataError, match="or never end"):
        sq.quantize(SmallNetwork(CLASSES), itertools.repeat(IMAGES[:1, :, :1, :1]))


@pytest.mark.parametrize("model", [SmallNetwork(CLASSES).to("meta"), nn.Sequential(nn.LazyLinear(3))])
def test_a_network_must_hold_its_numbers(model: nn.Module) -> None:
    with pytest.raises(RecipeError, match="has none yet"):
        sq.quantize(model, IMAGES)


@pytest.mark.parametrize("settings", [{"kind": ""}, {"kind": []}, {"targets": []}, {"targets": ()}])
def test_an_empty_setting_is_none_that_is_left_out(settings: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"^quantize: (weight\.kind|targets|weight)"):
        sq.quantize(SmallNetwork(CLASSES), IMAGES, **settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_norm", float("nan")),
        ("max_norm", -1.0),
        ("max_norm", 0.0),
        ("max_norm", 1e-320),
        ("max_norm", "a"),
        ("precision", "x"),
        ("precision", torch.bfloat16),
        ("perturb", None),
        ("perturb", "weight"),
    ],
)
def test_an_argument_of_a_step_obeys_its_rule(net: sq.QuantizedNetwork, name: str, value: Any) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    with pytest.raises(RecipeError, match=f"^SAQ: {name}: must"):
        sq.SAQ(net, optimizer, **{"rho": 0.1, name: value})


def test_a_step_takes_an_optimizer(net: sq.QuantizedNetwork) -> None:
    with pytest.raises(RecipeError, match=r"SAQ takes an optimizer of torch\.optim, got NoneType"):
        sq.SAQ(net, None, rho=0.1)  # type: ignore[arg-type]  # wrong on purpose
