"""SAQ with AdamW on a Vision Transformer, written down once more: plain tensors, autograd, no module of ours.

LSQ as in Esser et al. (2020), its offset as in Bhalgat et al. (2020), the cases and Algorithm 1 as in the SAQ
paper, AdamW as in Loshchilov and Hutter (2019). Slow and short on purpose.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["LAYERS", "Grid", "Reference", "on_grid"]

HEADS, WIDTH, PATCH, DEPTH = 2, 8, 4, 2
_BLOCK = ("attn.q", "attn.k", "attn.v", "attn.proj", "mlp.fc1", "mlp.fc2")
_BLOCKS = [f"blocks.{block}.{layer}" for block in range(DEPTH) for layer in _BLOCK]
LAYERS = ["patch_embed.proj", *_BLOCKS, "head"]
Values = Mapping[str, Tensor]


@dataclass(frozen=True)
class Grid:
    """Codes ``low`` to ``high``; ``unit`` codes make up a clip level, and a step size if it is 0."""

    low: int
    high: int
    unit: int = 0


SIGNED, UNSIGNED, EDGE = Grid(-8, 7), Grid(0, 15), Grid(-128, 127)
IMAGE = Grid(-128, 127, unit=127)
CLIP_LEVELS = ("quantizers.image.alpha", "quantizers.patch_embed_proj.alpha")


def on_grid(x: Tensor, alpha: Tensor, grid: Grid, offset: Tensor | None = None) -> Tensor:
    """``x`` on the grid, with gradients that autograd finds by itself."""
    if grid.unit:
        step = alpha.abs() / grid.unit
    else:
        scaled = alpha / (x.numel() * grid.high) ** 0.5
        step = (alpha - scaled).detach() + scaled
    r = x / step if offset is None else (x - offset) / step
    low, high = torch.full_like(r, grid.low), torch.full_like(r, grid.high)
    inside = torch.where(r < low, low, torch.where(r > high, high, r))
    code = inside + (inside.round() - inside).detach()
    return code * step if offset is None else code * step + offset


@dataclass
class Reference:
    """Parameters by the names of the network under test, and the state of AdamW and of Algorithm 1."""

    values: dict[str, Tensor]
    case: int = 3
    rho: float = 0.3
    tau: int = 1
    beta: float = 0.7
    lr: float = 0.002
    decay: float = 0.05
    integer_image: bool = False
    moved: tuple[str, ...] = ()
    t: int = 0
    g_v: Tensor | None = None
    averages: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def losses(self, images: Tensor, labels: Tensor) -> list[float]:
        """One step; the losses of its passes."""
        self._raise_steps()
        loss, g, of_v, of_q = self._pass(self.values, images, labels, {})
        found = [loss]
        flat = torch.cat([x.reshape(-1) for x in g.values()])
        if self.t % self.tau == 0:
            further = {name: g[name] for name in self.moved}
            direction = (of_q if self.case == 3 else of_v) | further
            length = sum((d**2).sum() for d in direction.values()) ** 0.5
            epsilon = {name: self.rho * d / (length + 1e-12) for name, d in direction.items()}
            shifted = {
                name: value + epsilon[name] if name in self.moved else value
                for name, value in self.values.items()
            }
            perturbed_loss, second, _, _ = self._pass(shifted, images, labels, epsilon)
            found.append(perturbed_loss)
            g_s = torch.cat([x.reshape(-1) for x in second.values()])
            self.g_v = g_s - (g_s @ flat) / (flat @ flat) * flat
        else:
            assert self.g_v is not None
            g_s = flat + self.beta * flat.norm() * self.g_v / self.g_v.norm()
        parts = torch.split(g_s + flat, [x.numel() for x in g.values()])
        self._adamw(dict(zip(g, parts, strict=True)))
        self._raise_steps()
        self.t += 1
        return found

    def _raise_steps(self) -> None:
        """Step sizes never go below 1e-4: set to it, not only counted as it."""
        for name, value in self.values.items():
            if name.endswith(".alpha") and not (self.integer_image and name in CLIP_LEVELS):
                self.values[name] = value.clamp(min=1e-4)

    def _adamw(self, update: Values) -> None:
        time = self.t + 1
        for name, flat in update.items():
            value = self.values[name]
            new = flat.reshape(value.shape)
            zeros = torch.zeros_like(value)
            first, second = self.averages.get(name, (zeros, zeros))
            first, second = 0.9 * first + 0.1 * new, 0.999 * second + 0.001 * new**2
            self.averages[name] = first, second
            if name.removesuffix(".weight") in LAYERS:
                value = value * (1 - self.lr * self.decay)
            root = (second / (1 - 0.999**time)) ** 0.5
            self.values[name] = value - self.lr * (first / (1 - 0.9**time)) / (root + 1e-8)

    def _edges(self) -> dict[str, Grid]:
        """Weights of 8 bits are narrower behind codes of 8 bits with a sign."""
        first = Grid(-63, 63) if self.integer_image else Grid(-127, 127)
        return {LAYERS[0]: first, LAYERS[-1]: Grid(-63, 63)}

    def _pass(
        self, values: Values, images: Tensor, labels: Tensor, epsilon: Values
    ) -> tuple[float, dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Loss, and its gradients: of parameters, of the quantizers' inputs, of their outputs."""
        leaves = {name: value.detach().requires_grad_() for name, value in values.items()}
        weight, v, q = {}, {}, {}
        for layer in LAYERS:
            v[layer] = leaves[f"{layer}.weight"] * 1.0
            grid = self._edges().get(layer, SIGNED)
            before = epsilon.get(layer, 0.0) if self.case == 2 else 0.0
            q[layer] = on_grid(v[layer] + before, leaves[f"{layer}.weight_quantizer.alpha"], grid)
            weight[layer] = q[layer] + (epsilon.get(layer, 0.0) if self.case != 2 else 0.0)
        loss = F.cross_entropy(self._logits(leaves, weight, images), labels)
        wanted = [*leaves.values(), *v.values(), *q.values()]
        found = list(torch.autograd.grad(loss, wanted))
        of_leaves = dict(zip(leaves, found, strict=False))
        rest = found[len(leaves) :]
        of_v, of_q = (
            dict(zip(LAYERS, part, strict=True)) for part in (rest[: len(LAYERS)], rest[len(LAYERS) :])
        )
        return loss.item(), of_leaves, of_v, of_q

    def _logits(self, p: Values, w: Values, images: Tensor) -> Tensor:
        def quantized(x: Tensor, name: str, grid: Grid = SIGNED) -> Tensor:
            name = "quantizers." + name.replace(".", "_")
            return on_grid(x, p[f"{name}.alpha"], grid, p.get(f"{name}.beta"))

        def linear(x: Tensor, name: str) -> Tensor:
            return x @ w[name].T + p[f"{name}.bias"]

        def norm(x: Tensor, name: str) -> Tensor:
            centred = x - x.mean(-1, keepdim=True)
            deviation = (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
            return centred / deviation * p[f"{name}.weight"] + p[f"{name}.bias"]

        if self.integer_image:
            images = quantized(images, "image", IMAGE)
        x = F.conv2d(images, w["patch_embed.proj"], p["patch_embed.proj.bias"], stride=PATCH)
        if self.integer_image:
            x = quantized(x, "patch_embed_proj", IMAGE)
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([p["cls_token"].expand(len(x), -1, -1), x], 1) + p["pos_embed"]
        n, tokens, _ = x.shape

        def heads(y: Tensor) -> Tensor:
            return y.reshape(n, tokens, HEADS, WIDTH // HEADS).transpose(1, 2)

        for block in ("blocks.0", "blocks.1"):
            y = quantized(norm(x, f"{block}.norm1"), f"{block}.norm1")  # one quantizer for q, k and v
            query = quantized(linear(y, f"{block}.attn.q") * (WIDTH // HEADS) ** -0.5, f"{block}.attn_mul")
            key = quantized(linear(y, f"{block}.attn.k"), f"{block}.attn.k")
            value = quantized(linear(y, f"{block}.attn.v"), f"{block}.attn.v")
            scores = (heads(query) @ heads(key).transpose(-2, -1)).softmax(-1)
            mixed = quantized(scores, f"{block}.attn.softmax", UNSIGNED) @ heads(value)
            mixed = quantized(mixed, f"{block}.attn_matmul_1").transpose(1, 2).reshape(n, tokens, WIDTH)
            x = x + linear(mixed, f"{block}.attn.proj")
            y = quantized(norm(x, f"{block}.norm2"), f"{block}.norm2")
            y = linear(y, f"{block}.mlp.fc1")
            y = 0.5 * y * (1 + torch.erf(y / 2**0.5))
            x = x + linear(quantized(y, f"{block}.mlp.act", UNSIGNED), f"{block}.mlp.fc2")
        return linear(quantized(norm(x, "norm")[:, 0], "getitem_1", EDGE), "head")
