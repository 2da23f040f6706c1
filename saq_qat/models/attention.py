"""Self-attention with its parts apart, so that quantizers can stand between them.

Vision Transformers compute query, key and value in one fused layer `qkv`, and often the rest in one fused
kernel. `SelfAttention` is the same function written as layers and plain matrix products.
"""

import copy
import inspect
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from saq_qat.errors import LegalityError
from saq_qat.models.layers import linear_of
from saq_qat.models.multihead import replacement_of

__all__ = ["SelfAttention", "separate_attention", "separate_weights"]

_NEEDED = {"qkv", "attn_drop", "proj", "proj_drop"}
_OPTIONAL = {"q_norm", "k_norm", "norm"}
_BRANCHES = ("q", "k", "v")
_IN_PROJECTIONS = (("in_proj_weight", "weight"), ("in_proj_bias", "bias"))


class SelfAttention(nn.Module):
    """Multi-head self-attention, [N, T, C] -> [N, T, C'], from a module that holds one fused `qkv`.

    The weights are copies of the fused module's, on its device and of its dtype; `attn_drop`, `proj`,
    `proj_drop` and the norms that it may have are taken over. The query is multiplied by `scale` before the
    product with the keys. Every operation is one that torch.fx records.
    """

    def __init__(self, fused: Any) -> None:
        super().__init__()
        self.num_heads = int(fused.num_heads)
        self.head_dim = fused.qkv.out_features // (3 * self.num_heads)
        self.scale = float(fused.scale)
        self.q, self.k, self.v = _thirds(fused.qkv)
        self.q_norm = getattr(fused, "q_norm", nn.Identity())
        self.k_norm = getattr(fused, "k_norm", nn.Identity())
        self.softmax = nn.Softmax(dim=-1)
        self.attn_drop = fused.attn_drop
        self.norm = getattr(fused, "norm", nn.Identity())
        self.proj = fused.proj
        self.proj_drop = fused.proj_drop
        self.train(fused.training)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Attention of all tokens to all; the two other arguments are timm's, and must keep their defaults.

        Raises:
            LegalityError: a mask is given.
        """
        if attn_mask is not None or is_causal:
            raise LegalityError(
                "Self-attention with separate layers takes no mask. Call the network without."
            )
        samples, tokens = x.size(0), x.size(1)
        heads = (samples, tokens, self.num_heads, self.head_dim)
        query = (self.q_norm(self.q(x).reshape(heads)) * self.scale).transpose(1, 2)
        key = self.k_norm(self.k(x).reshape(heads)).transpose(1, 2)
        value = self.v(x).reshape(heads).transpose(1, 2)
        weights = self.attn_drop(self.softmax(torch.matmul(query, key.transpose(-2, -1))))
        mixed = torch.matmul(weights, value).transpose(1, 2)
        mixed = mixed.reshape(samples, tokens, self.num_heads * self.head_dim)
        return self.proj_drop(self.proj(self.norm(mixed)))  # type: ignore[no-any-return]  # modules return Any

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, head_dim={self.head_dim}"


def _thirds(fused: nn.Linear) -> list[nn.Linear]:
    weights = fused.weight.chunk(3)
    biases = (None,) * 3 if fused.bias is None else fused.bias.chunk(3)
    return [linear_of(weight, bias) for weight, bias in zip(weights, biases, strict=True)]


def separate_attention(network: nn.Module) -> nn.Module:
    """Replace, in place, every fused self-attention by one with its parts apart; returns `network`.

    torch's own `nn.MultiheadAttention`, `nn.TransformerEncoderLayer` and `nn.TransformerEncoder` become what
    `multihead` has for them. A `SelfAttention` replaces what is found by structure, and by a calculation: a
    module with the parts of timm's attention (qkv, attn_drop, proj, proj_drop, num_heads, scale; q_norm,
    k_norm and norm if it has them), no other weights, and the same results in float64 on sample tokens.
    Anything else stays as it is, such as attention with a position bias, a gate or windows: where it is
    written out, or calls `F.scaled_dot_product_attention`, tracing finds its products all the same.
    """
    separate: dict[nn.Module, nn.Module | None] = {}
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if module not in separate:
            separate[module] = _separated(module)
        replacement = separate[module]
        if name and replacement is not None:
            network.set_submodule(name, replacement)
    return network


def _separated(module: nn.Module) -> nn.Module | None:
    if _has_the_parts(module) and _computes_the_same(module):
        return SelfAttention(module)
    return replacement_of(module)


def _has_the_parts(module: nn.Module) -> bool:
    children = {name for name, child in module.named_children() if child is not None}
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    qkv, heads = getattr(module, "qkv", None), getattr(module, "num_heads", None)
    return (
        children >= _NEEDED
        and children <= _NEEDED | _OPTIONAL
        and not own
        and isinstance(qkv, nn.Linear)
        and isinstance(heads, int)
        and qkv.out_features % (3 * heads) == 0
        and isinstance(getattr(module, "scale", None), float)
        and _takes_tokens_alone(module)
    )


def _takes_tokens_alone(module: nn.Module) -> bool:
    """Whether `forward` has one argument, besides those of `SelfAttention` that keep their defaults."""
    known = set(inspect.signature(SelfAttention.forward).parameters)
    parameters = inspect.signature(module.forward).parameters
    needed = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
    return len(needed) == 1 and set(parameters) - set(needed) <= known


@torch.no_grad()
def _computes_the_same(module: nn.Module) -> bool:
    """Whether `SelfAttention` would give what the module gives, tried with weights like noise."""
    fused: Any = copy.deepcopy(module).double().eval()
    for parameter in fused.parameters():
        parameter.copy_(_noise(parameter) / max(parameter.shape[-1], 1) ** 0.5)
    tokens = _noise(
        torch.empty(2, 4, fused.qkv.in_features, dtype=torch.float64, device=fused.qkv.weight.device)
    )
    try:
        expected = fused(tokens)
    # Another module may need other tokens, such as the windows of an image, and refuse these.
    except (RuntimeError, TypeError, ValueError, AssertionError):
        return False
    found = SelfAttention(fused)(tokens)
    return isinstance(expected, Tensor) and expected.shape == found.shape and torch.allclose(expected, found)


def _noise(like: Tensor) -> Tensor:
    """Values in [-1, 1] without a visible pattern, the same each time; the random generator is left alone."""
    steps = torch.arange(1, like.numel() + 1, dtype=like.dtype, device=like.device)
    return torch.sin(steps * steps).reshape(like.shape)


def separate_weights(weights: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """Weights by name, each fused `qkv` or `in_proj` split where a network wants `q`, `k` and `v` instead.

    Args:
        weights: a state dict, such as timm's own.
        wanted: names in the network's state dict.
    """
    separate: dict[str, Tensor] = {}
    for name, value in weights.items():
        parts = _parts(name)
        if name not in wanted and parts and set(parts) <= set(wanted) and _is_threefold(value):
            separate.update(zip(parts, value.chunk(3), strict=True))
        else:
            separate[_renamed(name, wanted)] = value
    return separate


def _parts(name: str) -> list[str]:
    """What the thirds of a fused weight are called; empty for any other name."""
    for fused, kind in (("qkv.weight", "weight"), ("qkv.bias", "bias"), *_IN_PROJECTIONS):
        if name == fused or name.endswith(f".{fused}"):
            return [f"{name.removesuffix(fused)}{branch}.{kind}" for branch in _BRANCHES]
    return []


def _renamed(name: str, wanted: Collection[str]) -> str:
    """The new name of a weight of an `nn.MultiheadAttention` whose keys have a width of their own."""
    for branch in _BRANCHES:
        fused = f"{branch}_proj_weight"
        new = f"{name.removesuffix(fused)}{branch}.weight"
        if name not in wanted and name.endswith(fused) and new in wanted:
            return new
    return name


def _is_threefold(value: Tensor) -> bool:
    return value.dim() > 0 and value.shape[0] % 3 == 0
