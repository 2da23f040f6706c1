"""The golden quantizers, one case at a time (tests/golden/README.md)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

__all__ = ["Case", "cases"]

_ARRAYS = np.load(Path(__file__).parents[1] / "golden" / "quantizers.npz")
_PRECISION = {"f32": (torch.float32, 1e-4, 1e-6), "f64": (torch.float64, 1e-9, 1e-12)}


@dataclass(frozen=True)
class Case:
    """Arrays under one prefix, such as ``saq/weight/b4/pos/f64``."""

    name: str

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(np.asarray(_ARRAYS[f"{self.name}/{key}"])).to(self.dtype)

    def __contains__(self, key: str) -> bool:
        return f"{self.name}/{key}" in _ARRAYS.files

    def get(self, key: str, default: float) -> Tensor:
        return self[key] if key in self else torch.tensor(default, dtype=self.dtype)

    @property
    def bits(self) -> int:
        return int(self.name.split("/")[2].removeprefix("b"))

    @property
    def dtype(self) -> torch.dtype:
        return _PRECISION[self.name.split("/")[-1]][0]

    @property
    def input(self) -> str:
        """Name of the quantized tensor: ``w`` for weights, ``x`` for activations."""
        return "w" if "w" in self else "x"

    def assert_close(self, actual: Tensor, key: str, where: Tensor | None = None) -> None:
        """``actual`` equals the golden array, at the elements of the mask ``where``."""
        _, relative, absolute = _PRECISION[self.name.split("/")[-1]]
        expected = self[key].reshape(actual.shape)
        if where is not None:
            actual, expected = actual[where], expected[where]
        torch.testing.assert_close(
            actual.detach(), expected, rtol=relative, atol=absolute, msg=lambda text: f"{key}: {text}"
        )


def cases(prefix: str) -> list[Case]:
    """Every case under a prefix, sorted by name."""
    names = {key.rpartition("/")[0] for key in _ARRAYS.files if key.startswith(prefix)}
    return [Case(name) for name in sorted(names)]
