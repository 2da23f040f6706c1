"""Curvature at the trained network: the largest eigenvalues of the Hessian, and its trace.

The Hessian is that of ``LossSurface``: with respect to the quantized weights, of the mean loss of fixed
images. lambda_max is what the paper's Table 4 and Figure 3 compare; its authors find it by power iteration on
10,000 training images. Lanczos finds the same number from fewer products, with further eigenvalues and a
residual that says how exact each is. It is the largest eigenvalue, and not the largest magnitude.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saq_qat.analysis.surface import LossSurface
from saq_qat.errors import RecipeError, SaqError, SetupError

__all__ = ["NotConvergedError", "Spectrum", "TraceEstimate", "eigenvalues", "trace"]

Vector = NDArray[np.float64]

_LANCZOS_VECTORS = 20


class NotConvergedError(SaqError):
    """Lanczos gave up: not one eigenvalue converged within the restarts, or a product was zero."""


@dataclass(frozen=True)
class Spectrum:
    """The largest eigenvalues of a Hessian, largest first.

    Attributes:
        eigenvalues: in loss per squared weight; fewer than were asked for where not all converged.
        residuals: ||H v - lambda v|| of each with its unit vector v, computed anew at the end: an eigenvalue
            of H lies within that distance of lambda.
        converged: all that were asked for were found, each with a residual of at most ``tolerance`` times
            the largest eigenvalue's magnitude.
        products: Hessian-vector products that it took.
    """

    eigenvalues: tuple[float, ...]
    residuals: tuple[float, ...]
    tolerance: float
    converged: bool
    products: int
    seed: int


@dataclass(frozen=True)
class TraceEstimate:
    """Hutchinson's estimate of a trace.

    Attributes:
        mean: over the probes. standard_error: of that mean, from the spread of the probes.
    """

    mean: float
    standard_error: float
    probes: int
    seed: int


def eigenvalues(
    surface: LossSurface,
    count: int = 1,
    *,
    tolerance: float = 1e-3,
    seed: int = 0,
    restarts: int = 50,
    on_product: Callable[[int], None] = lambda _done: None,
) -> Spectrum:
    """The ``count`` largest eigenvalues, by ARPACK's restarted Lanczos with full reorthogonalisation.

    ARPACK stops where the residual of each is estimated at ``tolerance`` times its magnitude; the residuals
    that are returned are measured. Memory: about twenty vectors of float64 as long as all weights together.

    Args:
        seed: of the first vector; the same seed gives the same numbers.
        restarts: give up after so many.
        on_product: told how many products were done.

    Raises:
        RecipeError: fewer than two weights more than eigenvalues, or a tolerance that nothing can meet.
        NotConvergedError: not one converged. SaqError: as ``LossSurface.hessian_product``.
        SetupError: SciPy is missing.
    """
    if not 1 <= count < surface.size:
        raise RecipeError(
            f"Lanczos finds from 1 to all but one eigenvalue; asked for {count} of {surface.size} weights."
        )
    if not 0.0 < tolerance < 1.0:
        raise RecipeError(f"The tolerance of eigenvalues must lie between 0 and 1, as 1e-3; got {tolerance}.")
    product = _Product(surface, on_product)
    values, vectors = _lanczos(product, count, tolerance, seed, restarts)
    order = np.argsort(-values)
    found = tuple(float(values[index]) for index in order)
    residuals = tuple(product.residual(values[index], vectors[:, index]) for index in order)
    converged = len(found) == count and max(residuals) <= tolerance * abs(found[0])
    return Spectrum(found, residuals, tolerance, converged, product.done, seed)


class _Product:
    """H v of flat vectors, counted."""

    def __init__(self, surface: LossSurface, on_product: Callable[[int], None]) -> None:
        self._surface, self._on_product = surface, on_product
        self.size, self.done = surface.size, 0

    def __call__(self, vector: Vector) -> Vector:
        result = _flat(self._surface.hessian_product(_parts(vector, self._surface.slots)))
        self.done += 1
        self._on_product(self.done)
        return result

    def residual(self, value: float, vector: Vector) -> float:
        return float(np.linalg.norm(self(vector) - value * vector))


def _lanczos(
    product: _Product, count: int, tolerance: float, seed: int, restarts: int
) -> tuple[Vector, Vector]:
    """Eigenvalues (k,) and unit eigenvectors (weights, k) that converged, k from 1 to ``count``."""
    linalg = _scipy_linalg()
    operator = linalg.LinearOperator((product.size, product.size), matvec=product, dtype=np.float64)
    start = np.random.default_rng(seed).standard_normal(product.size)
    basis = min(product.size, max(2 * count + 1, _LANCZOS_VECTORS))
    try:
        values, vectors = linalg.eigsh(
            operator, count, which="LA", v0=start, ncv=basis, tol=tolerance, maxiter=restarts
        )
    except linalg.ArpackNoConvergence as error:
        values, vectors = error.eigenvalues, error.eigenvectors
    except linalg.ArpackError as error:
        raise NotConvergedError(
            f"Lanczos ends where a Hessian-vector product is zero, as one was: {error}. Is the loss zero?"
        ) from error
    if not len(values):
        raise NotConvergedError(
            f"No eigenvalue converged to {tolerance:g} of its magnitude within {restarts} restarts "
            f"({product.done} products). Raise --tolerance or --restarts, or use --float64."
        )
    return values, vectors


def trace(
    surface: LossSurface,
    *,
    probes: int = 32,
    seed: int = 0,
    on_probe: Callable[[int], None] = lambda _done: None,
) -> TraceEstimate:
    """The trace as the mean of v'Hv over random vectors of +1 and -1 (Hutchinson, 1990).

    Raises:
        RecipeError: fewer than two probes, which have no spread. SaqError: as
            ``LossSurface.hessian_product``.
    """
    if probes < 2:
        raise RecipeError(f"A standard error needs two probes or more; got {probes}. Raise --probes.")
    generator = np.random.default_rng(seed)
    found = np.empty(probes)
    for index in range(probes):
        signs = generator.integers(0, 2, surface.size).astype(np.float64) * 2.0 - 1.0
        vector = _parts(signs, surface.slots)
        found[index] = signs @ _flat(surface.hessian_product(vector))
        on_probe(index + 1)
    return TraceEstimate(float(found.mean()), float(found.std(ddof=1) / np.sqrt(probes)), probes, seed)


def _scipy_linalg() -> Any:
    try:
        import scipy.sparse.linalg
    except ImportError as error:
        raise SetupError(
            "Eigenvalues are found by SciPy's ARPACK, which is not installed. pip install 'saq-qat[analysis]'"
        ) from error
    return scipy.sparse.linalg


def _parts(vector: Vector, like: Sequence[Tensor]) -> list[Tensor]:
    """A flat vector as tensors of these shapes, dtypes and devices."""

    def cut() -> Iterator[Tensor]:
        start = 0
        for tensor in like:
            part = torch.from_numpy(vector[start : start + tensor.numel()])
            start += tensor.numel()
            yield part.reshape(tensor.shape).to(tensor)

    return list(cut())


def _flat(parts: Sequence[Tensor]) -> Vector:
    return torch.cat([part.double().reshape(-1) for part in parts]).cpu().numpy()
