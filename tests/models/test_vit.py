"""Built-in Vision Transformers: timm's functions and weights, in a form that can be traced and quantized."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, fx, nn

from saq_qat.errors import ArtifactError, RecipeError, SetupError
from saq_qat.models import build_model
from saq_qat.models.attention import SelfAttention
from saq_qat.quant.trace.tracer import trace
from saq_qat.recipe.schema import Model

timm = pytest.importorskip("timm", reason="needs the extra vit")

Arguments = dict[str, bool | int | float | str]

SMALL: Arguments = {"depth": 2}
EVERYTHING: Arguments = {
    "depth": 2,
    "num_heads": 2,
    "class_token": True,
    "reg_tokens": 2,
    "qk_norm": True,
    "scale_attn_norm": True,
    "init_values": 0.1,
    "pre_norm": True,
    "global_pool": "avg",
    "drop_rate": 0.1,
    "pos_drop_rate": 0.1,
    "proj_drop_rate": 0.1,
    "attn_drop_rate": 0.1,
    "drop_path_rate": 0.3,
}
MICRO: Arguments = {"img_size": 32, "patch_size": 4, "embed_dim": 64, "num_heads": 4}


def micro(**arguments: bool | int | float | str) -> nn.Module:
    torch.manual_seed(0)
    return build_model(Model(name="vit_micro", arguments={**SMALL, **arguments}), 10)


def timm_micro(**arguments: bool | int | float | str) -> nn.Module:
    """The same network as timm writes it, with the same weights, its attention not fused into one kernel."""
    torch.manual_seed(0)
    network: Any = timm.create_model(
        "vit_small_patch16_224", num_classes=10, **{**MICRO, **SMALL, **arguments}
    )
    for module in network.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    return network  # type: ignore[no-any-return]


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "blocks", "parameters"),
    [
        ("vit_s32", 12, 22_878_952),
        ("vit_s16", 12, 22_050_664),
        ("vit_b32", 12, 88_224_232),
        ("vit_b16", 12, 86_567_656),
        ("vit_micro", 4, 272_424),
    ],
)
def test_sizes_are_those_of_the_literature(name: str, blocks: int, parameters: int) -> None:
    network = build_model(Model(name=name, arguments={"weight_init": "skip"}), 1000)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert sum(isinstance(module, SelfAttention) for module in network.modules()) == blocks


@pytest.mark.parametrize("arguments", [{}, EVERYTHING], ids=["plain", "everything"])
def test_outputs_are_timms(arguments: Arguments) -> None:
    expected = timm_micro(**arguments).eval()(images())
    torch.testing.assert_close(micro(**arguments).eval()(images()), expected, rtol=1e-5, atol=1e-6)


def test_every_parameter_gets_a_gradient() -> None:
    network = micro(**EVERYTHING)
    network(images()).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name


def save_pth(weights: dict[str, Tensor], folder: Path) -> Path:
    torch.save({"state_dict": weights}, folder / "w.pth")
    return folder / "w.pth"


def save_safetensors(weights: dict[str, Tensor], folder: Path) -> Path:
    save_file(weights, folder / "w.safetensors")
    return folder / "w.safetensors"


@pytest.mark.parametrize("save", [save_pth, save_safetensors])
@pytest.mark.parametrize("strict", [True, False])
def test_timms_own_weights_load(
    save: Callable[[dict[str, Tensor], Path], Path], strict: bool, tmp_path: Path
) -> None:
    torch.manual_seed(7)
    source = timm_micro().eval()
    for parameter in source.parameters():
        nn.init.normal_(parameter, std=0.1)
    path = save(source.state_dict(), tmp_path)
    model = Model(name="vit_micro", arguments={**SMALL}, pretrained=str(path), pretrained_strict=strict)
    network = build_model(model, 10).eval()
    torch.testing.assert_close(network(images()), source(images()), rtol=1e-5, atol=1e-5)


def test_its_own_weights_load_again(tmp_path: Path) -> None:
    source = micro().eval()
    path = save_safetensors(source.state_dict(), tmp_path)
    torch.manual_seed(9)
    network = build_model(Model(name="vit_micro", arguments={**SMALL}, pretrained=str(path)), 10).eval()
    assert torch.equal(network(images()), source(images()))


def test_timms_weights_for_other_classes_load_but_for_the_head(tmp_path: Path) -> None:
    source = timm_micro()
    path = save_pth(source.state_dict(), tmp_path)
    model = Model(name="vit_micro", arguments={**SMALL}, pretrained=str(path))
    with pytest.raises(ArtifactError, match="pretrained_strict: false"):
        build_model(model, 5)
    network = build_model(model.model_copy(update={"pretrained_strict": False}), 5)
    fused = source.get_parameter("blocks.1.attn.qkv.weight")
    assert torch.equal(network.get_parameter("blocks.1.attn.k.weight"), fused[64:128])


def test_weights_of_another_width_are_told_by_layer(tmp_path: Path) -> None:
    path = save_pth(timm_micro(embed_dim=48).state_dict(), tmp_path)
    with pytest.raises(ArtifactError, match=r"blocks\.0\.attn\.q\.weight"):
        build_model(Model(name="vit_micro", arguments={**SMALL}, pretrained=str(path)), 10)


@pytest.mark.parametrize("arguments", [{}, EVERYTHING], ids=["plain", "everything"])
def test_the_trace_is_the_network_in_both_modes(
    arguments: Arguments,
) -> None:
    network = micro(**arguments).train()
    traced = trace(network)
    torch.manual_seed(2)
    expected = network(images())
    torch.manual_seed(2)
    assert torch.equal(traced.train()(images()), expected)
    assert torch.equal(traced.eval()(images()), network.eval()(images()))


def test_stochastic_depth_of_a_trace_ends_with_training() -> None:
    traced = trace(micro(drop_path_rate=0.9).train())
    assert not torch.equal(traced(images()), traced(images()))
    traced.eval()
    assert torch.equal(traced(images()), traced(images()))


def attention_nodes(graph: fx.Graph) -> list[fx.Node]:
    """From the layer for the queries to the projection, without shapes."""
    nodes = [node for node in graph.nodes if node.target != "size"]
    names = [node.name for node in nodes]
    return nodes[names.index("blocks_0_attn_q") : names.index("blocks_0_attn_proj") + 1]


def test_quantizers_find_every_part_of_attention() -> None:
    nodes = attention_nodes(trace(micro()).graph)
    steps = [node.target if isinstance(node.target, str) else node.target.__name__ for node in nodes]
    path = "blocks.0.attn"
    assert steps == [
        *(f"{path}.q", "reshape", "mul", "transpose"),
        *(f"{path}.k", "reshape", "transpose"),
        *(f"{path}.v", "reshape", "transpose"),
        *("transpose", "matmul", f"{path}.softmax", f"{path}.attn_drop", "matmul"),
        *("transpose", "reshape", f"{path}.proj"),
    ]


def test_export_keeps_the_batch_free() -> None:
    traced = trace(micro().eval())
    program = torch.export.export(traced, (images(2),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    for count in (1, 5):
        expected = traced(images(count))
        torch.testing.assert_close(program.module()(images(count)), expected, rtol=1e-6, atol=1e-6)


def test_a_timm_network_of_your_own_is_separated_too() -> None:
    arguments: Arguments = {"img_size": 32, "patch_size": 8, "depth": 1, "drop_path_rate": 0.2}
    model = Model(name="timm.models:deit_tiny_distilled_patch16_224", arguments=arguments)
    network = build_model(model, 10)
    assert sum(isinstance(module, SelfAttention) for module in network.modules()) == 1
    assert torch.equal(trace(network).eval()(images()), network.eval()(images()))


def test_missing_timm_is_told_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SetupError, match=r"pip install 'saq-qat\[vit\]'"):
        build_model(Model(name="vit_s16"), 10)


def test_arguments_that_do_not_fit_are_recipe_errors() -> None:
    with pytest.raises(RecipeError, match="divisible"):
        micro(num_heads=5)


def test_downloads_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"model\.pretrained"):
        micro(pretrained=True)
