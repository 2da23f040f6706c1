"""Vision Transformers through timm, with their attention in separate layers.

Source: Dosovitskiy et al., "An Image is Worth 16x16 Words" (2021); small and base sizes as in Steiner et al.,
"How to train your ViT?" (2022). Inputs are float32 [N, 3, H, W] with H = W = `img_size` (224, or 32 for
`vit_micro`); outputs are logits [N, num_classes]. Further arguments are those of timm's `VisionTransformer`:
img_size, patch_size, embed_dim, depth, num_heads, mlp_ratio, drop_rate, proj_drop_rate, drop_path_rate,
class_token, global_pool and so on. Weights are random; nothing is downloaded.
"""

from functools import partial
from types import ModuleType
from typing import Any

from torch import nn

from saq_qat.errors import SetupError
from saq_qat.models.attention import separate_attention

__all__ = ["vit_b16", "vit_b32", "vit_micro", "vit_s16", "vit_s32"]

_MICRO = {"img_size": 32, "patch_size": 4, "embed_dim": 64, "depth": 4, "num_heads": 4}


def vit_s32(num_classes: int = 1000, **arguments: Any) -> nn.Module:
    """ViT-S/32: width 384, 12 blocks of 6 heads, 50 tokens; 22.9 million parameters."""
    return _build("vit_small_patch32_224", num_classes, arguments)


def vit_s16(num_classes: int = 1000, **arguments: Any) -> nn.Module:
    """ViT-S/16: width 384, 12 blocks of 6 heads, 197 tokens; 22.1 million parameters."""
    return _build("vit_small_patch16_224", num_classes, arguments)


def vit_b32(num_classes: int = 1000, **arguments: Any) -> nn.Module:
    """ViT-B/32: width 768, 12 blocks of 12 heads, 50 tokens; 88.2 million parameters."""
    return _build("vit_base_patch32_224", num_classes, arguments)


def vit_b16(num_classes: int = 1000, **arguments: Any) -> nn.Module:
    """ViT-B/16: width 768, 12 blocks of 12 heads, 197 tokens; 86.6 million parameters."""
    return _build("vit_base_patch16_224", num_classes, arguments)


def vit_micro(num_classes: int = 10, **arguments: Any) -> nn.Module:
    """A ViT of ResNet-20's size for 32 x 32 images: width 64, 4 blocks of 4 heads, 65 tokens (4 x 4 patches).

    0.2 million parameters; ViT-Ti/16, which the literature calls tiny, has 5.7 million.
    """
    return _build("vit_small_patch16_224", num_classes, {**_MICRO, **arguments})


def _build(entry_point: str, num_classes: int, arguments: dict[str, Any]) -> nn.Module:
    # torch's own LayerNorm computes what timm's does, and torch.fx shows it as one layer with a name.
    defaults = {"norm_layer": partial(nn.LayerNorm, eps=1e-6)}
    network: nn.Module = _timm().create_model(
        entry_point, pretrained=False, num_classes=num_classes, **{**defaults, **arguments}
    )
    return separate_attention(network)


def _timm() -> ModuleType:
    try:
        import timm
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise SetupError(
            "The built-in Vision Transformers are made by timm, which is not installed. "
            "Run: pip install 'saq-qat[vit]'"
        ) from error
    return timm
