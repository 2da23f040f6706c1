"""Building networks: the built-in ones trace and run, a user's own is found, mistakes are explained."""

from pathlib import Path

import pytest
import torch
from torch import fx, nn

from saq_qat.errors import RecipeError
from saq_qat.models import build_model
from saq_qat.recipe.schema import Model

BUILT_IN = ["resnet20", "preresnet20", "resnet18", "resnet34", "resnet50", "mobilenet_v2"]


def write_module(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.py").write_text(text)


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_networks_trace_and_give_one_logit_per_class(name: str) -> None:
    network = build_model(Model(name=name), 7).eval()
    images = torch.randn(2, 3, 32, 32)
    traced = fx.symbolic_trace(network)
    assert traced(images).shape == (2, 7)
    assert torch.equal(traced(images), network(images))


@pytest.mark.parametrize("name", ["resnet20", "preresnet20"])
@pytest.mark.parametrize("size", [16, 17, 40])
def test_cifar_networks_take_any_size_from_16(name: str, size: int) -> None:
    assert build_model(Model(name=name), 10).eval()(torch.zeros(1, 3, size, size)).shape == (1, 10)


@pytest.mark.parametrize("name", ["resnet20", "preresnet20"])
def test_every_relu_of_the_cifar_networks_is_called_once(name: str) -> None:
    graph = fx.symbolic_trace(build_model(Model(name=name), 10)).graph
    called = [node.target for node in graph.nodes if node.op == "call_module"]
    assert len(called) == len(set(called))
    assert not [node for node in graph.nodes if node.op == "call_function" and "relu" in str(node.target)]


def test_preresnet20_has_the_parameters_of_the_papers_network() -> None:
    # 278,176 in the authors' report, less their 44 clip levels: two for each of 22 quantized layers.
    network = build_model(Model(name="preresnet20"), 100)
    assert sum(parameter.numel() for parameter in network.parameters()) == 278_176 - 44


def test_resnet20_shortcuts_are_projections_with_batch_norm() -> None:
    network = build_model(Model(name="resnet20"), 10)
    projections = [module for name, module in network.named_modules() if name.endswith("shortcut.0")]
    assert len(projections) == 2
    assert all(isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) for module in projections)


def test_initial_weights_are_a_function_of_the_global_seed() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        weight = build_model(Model(name="resnet20"), 10).get_parameter("fc.weight")
        return weight.detach()

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_arguments_reach_the_constructor() -> None:
    network = build_model(Model(name="mobilenet_v2", arguments={"width_mult": 0.25}), 10)
    full = build_model(Model(name="mobilenet_v2"), 10)
    assert sum(p.numel() for p in network.parameters()) < sum(p.numel() for p in full.parameters())


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'resnet18'"):
        build_model(Model(name="resnet81"), 10)


@pytest.mark.parametrize("argument", ["weights", "pretrained"])
def test_arguments_that_would_download_are_refused(argument: str) -> None:
    with pytest.raises(RecipeError, match=r"model\.pretrained"):
        build_model(Model(name="resnet18", arguments={argument: "DEFAULT"}), 10)


def test_number_of_classes_comes_from_the_data_alone() -> None:
    with pytest.raises(RecipeError, match="num_classes"):
        build_model(Model(name="resnet20", arguments={"num_classes": 5}), 10)


def test_own_network_is_imported_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_module(
        tmp_path,
        "own_network_a",
        "from torch import nn\ndef small(num_classes, width):\n    return nn.Linear(width, num_classes)\n",
    )
    network = build_model(Model(name="own_network_a:small", arguments={"width": 3}), 4)
    assert isinstance(network, nn.Linear)
    assert network.weight.shape == (4, 3)


def test_a_constructor_may_be_a_method_of_a_class_that_takes_the_classes_by_keyword(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_module(
        tmp_path,
        "own_network_c",
        "from torch import nn\nclass Net(nn.Linear):\n    @classmethod\n"
        "    def from_name(cls, width, **named):\n        return cls(int(width), named['num_classes'])\n",
    )
    network = build_model(Model(name="own_network_c:Net.from_name", arguments={"width": "3"}), 4)
    assert isinstance(network, nn.Linear)
    assert network.weight.shape == (4, 3)


def test_current_folder_leaves_the_import_path_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    with pytest.raises(RecipeError):
        build_model(Model(name="no_such_module_anywhere:f"), 4)
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("no_such_module_anywhere:net", "cannot be imported: ModuleNotFoundError"),
        ("own_network_b:missing", "'missing' is none of 'own_network_b'"),
        ("own_network_b:smal", "Did you mean 'own_network_b:small'"),
        ("own_network_b:constant", "must name a callable"),
        ("own_network_b:", "must name a callable"),
        ("own_network_b:raising", "raised ZeroDivisionError: by intent"),
        ("own_network_b:takes_nothing", "missing 1 required positional argument"),
        ("own_network_b:text", "must return a torch.nn.Module; got str"),
        ("own_network_broken:net", "cannot be imported: SyntaxError"),
    ],
)
def test_mistakes_in_an_own_network_are_recipe_errors(
    name: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_module(
        tmp_path,
        "own_network_b",
        "def small(num_classes): ...\n"
        "def raising(num_classes): raise ZeroDivisionError('by intent')\n"
        "def takes_nothing(classes): ...\n"
        "def text(num_classes): return 'text'\n"
        "constant = 3\n",
    )
    write_module(tmp_path, "own_network_broken", "def net(:\n")
    with pytest.raises(RecipeError) as caught:
        build_model(Model(name=name), 10)
    assert told in str(caught.value)
