"""The golden quantizers, one case at a time (tests/golden/README.md)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["Case", "cases"]

_FOLDER = Path(__file__).parents[1] / "golden"
_PRECISION = {"f32": (torch.float32, 1e-4, 1e-6), "f64": (torch.float64, 1e-9, 1e-12)}

Arrays = dict[str, npt.NDArray[np.float64]]


def _spread(stored: Arrays) -> Arrays:
    """Each case of ``lsq.npz`` with its input, upstream gradient and input gradient written out."""
    arrays = {f"lsq/{key}": array for key, array in stored.items() if key.count("/") == 3}
    for key in [key for key in arrays if key.endswith("/clipped")]:
        case, tensor = key.removesuffix("/clipped"), key.split("/")[1]
        name = "w" if f"{tensor}/w" in stored else "x"
        arrays[f"{case}/{name}"], arrays[f"{case}/G"] = stored[f"{tensor}/{name}"], stored[f"{tensor}/G"]
        gradient = stored[f"{tensor}/G"].copy()
        gradient.reshape(-1)[arrays.pop(key).astype(np.int64)] = 0
        arrays[f"{case}/grad_{name}"] = gradient
    return arrays


_ARRAYS = dict(np.load(_FOLDER / "quantizers.npz")) | _spread(dict(np.load(_FOLDER / "lsq.npz")))


@dataclass(frozen=True)
class Case:
    """Arrays under one prefix, such as ``saq/weight/b4/pos/f64``."""

    name: str

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(np.asarray(_ARRAYS[f"{self.name}/{key}"])).to(self.dtype)

    def __contains__(self, key: str) -> bool:
        return f"{self.name}/{key}" in _ARRAYS

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
    names = {key.rpartition("/")[0] for key in _ARRAYS if key.startswith(prefix)}
    return [Case(name) for name in sorted(names)]
