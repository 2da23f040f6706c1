"""torch's multi-head attention and encoders with their parts apart, as `SelfAttention` has them.

torch computes them in one function each, and its encoders choose among several by what they are given:
torch.fx sees no layer of them.
"""

from typing import Any, NoReturn, cast

import torch
from torch import Tensor, nn

from saq_qat.errors import LegalityError
from saq_qat.models.layers import linear_of

__all__ = ["Encoder", "EncoderLayer", "MultiheadAttention", "replacement_of"]


class MultiheadAttention(nn.Module):
    """What an `nn.MultiheadAttention` computes, in layers q, k, v and out_proj.

    Inputs and outputs are those of torch for batches: query (N, T, C), key and value (N, S, C), with the
    first two axes swapped unless `batch_first`; the result, and the weights (N, T, S), averaged over heads
    unless told otherwise.
    """

    def __init__(self, fused: nn.MultiheadAttention) -> None:
        super().__init__()
        self.num_heads, self.head_dim = fused.num_heads, fused.head_dim
        self.batch_first = fused.batch_first
        self.scale = fused.head_dim**-0.5
        biases = (None,) * 3 if fused.in_proj_bias is None else fused.in_proj_bias.chunk(3)
        if fused.in_proj_weight is None:
            weights: Any = (fused.q_proj_weight, fused.k_proj_weight, fused.v_proj_weight)
        else:
            weights = fused.in_proj_weight.chunk(3)
        self.q, self.k, self.v = map(linear_of, weights, biases)
        self.softmax = nn.Softmax(dim=-1)
        self.attn_drop = nn.Dropout(fused.dropout)
        self.out_proj = linear_of(fused.out_proj.weight, fused.out_proj.bias)
        self.train(fused.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attention of all tokens to all.

        Raises:
            LegalityError: a mask is given.
        """
        if key_padding_mask is not None or attn_mask is not None or is_causal:
            _refuse_mask()
        if not self.batch_first:
            swapped = (query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1))
            mixed, weights = self._attend(*swapped)
            mixed = mixed.transpose(0, 1)
        else:
            mixed, weights = self._attend(query, key, value)
        if not need_weights:
            return mixed, None
        return mixed, weights.mean(1) if average_attn_weights else weights

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        queries = (self._heads(self.q(query)) * self.scale).transpose(1, 2)
        keys = self._heads(self.k(key)).transpose(1, 2)
        values = self._heads(self.v(value)).transpose(1, 2)
        weights = self.attn_drop(self.softmax(torch.matmul(queries, keys.transpose(-2, -1))))
        mixed = torch.matmul(weights, values).transpose(1, 2)
        return self.out_proj(mixed.flatten(2)), weights

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(x.size(0), x.size(1), self.num_heads, self.head_dim)

    def extra_repr(self) -> str:
        return f"num_heads={self.num_heads}, head_dim={self.head_dim}, batch_first={self.batch_first}"


class EncoderLayer(nn.Module):
    """What an `nn.TransformerEncoderLayer` computes, in layers of the same names; (N, T, C) to (N, T, C)."""

    self_attn: nn.Module
    linear1: nn.Module
    linear2: nn.Module
    norm1: nn.Module
    norm2: nn.Module
    dropout: nn.Module
    dropout1: nn.Module
    dropout2: nn.Module

    def __init__(self, fused: nn.TransformerEncoderLayer) -> None:
        super().__init__()
        for name, child in fused.named_children():
            self.add_module(name, child)
        self.norm_first = fused.norm_first
        self.activation = fused.activation
        self.train(fused.training)

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Attention and two linear layers, each beside a residual.

        Raises:
            LegalityError: a mask is given.
        """
        if src_mask is not None or src_key_padding_mask is not None or is_causal:
            _refuse_mask()
        if self.norm_first:
            src = src + self._attention(self.norm1(src))
            return src + self._linear(self.norm2(src))
        src = self.norm1(src + self._attention(src))
        return cast(Tensor, self.norm2(src + self._linear(src)))

    def _attention(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.dropout1(self.self_attn(x, x, x, need_weights=False)[0]))

    def _linear(self, x: Tensor) -> Tensor:
        wide = self.dropout(self.activation(self.linear1(x)))
        return cast(Tensor, self.dropout2(self.linear2(wide)))


class Encoder(nn.Module):
    """What an `nn.TransformerEncoder` computes: its layers one after the other, then its norm."""

    def __init__(self, fused: nn.TransformerEncoder) -> None:
        super().__init__()
        self.layers = fused.layers
        self.norm = fused.norm
        self.train(fused.training)

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        """All layers.

        Raises:
            LegalityError: a mask is given.
        """
        if mask is not None or src_key_padding_mask is not None or is_causal:
            _refuse_mask()
        for layer in self.layers:
            src = layer(src)
        return src if self.norm is None else self.norm(src)


def replacement_of(module: nn.Module) -> nn.Module | None:
    """The same function with its parts apart; None for what is not of torch.nn, or has parts without a layer.

    Those are the added keys and values of `nn.MultiheadAttention`.
    """
    kind = type(module)
    if kind is nn.TransformerEncoder:
        return Encoder(cast(nn.TransformerEncoder, module))
    if kind is nn.TransformerEncoderLayer:
        return EncoderLayer(cast(nn.TransformerEncoderLayer, module))
    if kind is nn.MultiheadAttention and module.bias_k is None and not module.add_zero_attn:
        return MultiheadAttention(cast(nn.MultiheadAttention, module))
    return None


def _refuse_mask() -> NoReturn:
    raise LegalityError(
        "Attention with separate layers takes no mask, and images need none. Call the network without."
    )
