"""More of the input Hessian's spectrum than its norm: its top eigenpairs and its trace."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from input_hessian.estimators import _krylov, _projected
from input_hessian.hessian import MatVec, differentiating
from input_hessian.vectors import vector_norm


class Eigenpairs(NamedTuple):
    """Estimates of the ``k`` eigenvalues of largest absolute value, for every image of a batch.

    Attributes:
        values: Rayleigh quotients ``v'H v``, ``[B, k]``, by falling absolute value, in nats per squared
            pixel unit.
        vectors: orthonormal ``v``, ``[B, k, *image]``.
        residuals: ``||H v - value v||_2``, ``[B, k]``; some eigenvalue lies within it of the value.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor


@differentiating
def top_eigenpairs(matvec: MatVec, start: Tensor, *, k: int, hvps: int) -> Eigenpairs:
    """Return the ``k`` Ritz pairs of largest absolute value of ``start``'s Krylov space (Lanczos).

    A multiple eigenvalue is found once, as one start has one component in its eigenspace.  Where the
    Krylov space of an image has fewer than ``k`` dimensions, what is missing is 0, vectors too.

    Args:
        matvec: ``v -> H v`` on ``[B, *image]``, as ``derivatives(model, images, labels).matvec``.
        start: ``[B, *image]``, of any length; at random, so that it has a component along every
            eigenvector.
        k: eigenpairs per image.
        hvps: Hessian-vector products, at least ``k``; more of them, smaller residuals.

    Source: Golub & Van Loan, *Matrix Computations*, 4th ed., section 10.1.

    Raises:
        ValueError: unless ``1 <= k <= hvps``.
    """
    if not (isinstance(k, int) and isinstance(hvps, int) and 1 <= k <= hvps):
        raise ValueError(f"k: expected from 1 to hvps eigenpairs, got k={k!r} and hvps={hvps!r}")
    *_, (basis, products, _) = _krylov(matvec, start, hvps)
    ritz, weights = torch.linalg.eigh(_projected(basis, products))
    largest = ritz.abs().topk(k, dim=1).indices
    weights = weights.mT.gather(1, largest[:, :, None].expand(-1, -1, hvps))
    vectors, images = weights @ basis, weights @ products
    values = (vectors * images).sum(2)
    residuals = vector_norm((images - values[:, :, None] * vectors).flatten(0, 1)).view_as(values)
    return Eigenpairs(values, vectors.unflatten(2, start.shape[1:]), residuals)


class Trace(NamedTuple):
    """An estimate of the trace of ``H`` for every image of a batch.

    Attributes:
        value: unbiased, ``[B]``, in nats per squared pixel unit.
        standard_error: of ``value``, ``[B]``; NaN of a single draw.
    """

    value: Tensor
    standard_error: Tensor


@differentiating
def trace(
    matvec: MatVec, like: Tensor, *, draws: int, generator: torch.Generator | None = None
) -> Trace:
    """Estimate the trace of ``H`` as the mean of ``z'H z`` over random signs ``z``.

    The variance of one draw is ``2 (||H||_F^2 - sum_i H_ii^2)``.

    Args:
        matvec: ``v -> H v`` on ``[B, *image]``.
        like: ``[B, *image]``, for the shape, dtype and device of ``z``.
        draws: products to spend, at least 1.
        generator: source of the signs, on the device of ``like``.

    Source: Hutchinson 1990, doi:10.1080/03610919008812866.

    Raises:
        ValueError: for less than one draw.
    """
    if not (isinstance(draws, int) and draws >= 1):
        raise ValueError(f"draws: expected at least 1, got {draws!r}")
    found = []
    for _ in range(draws):
        signs = torch.randint(0, 2, like.shape, device=like.device, generator=generator)
        z = signs.to(like.dtype) * 2 - 1
        found.append((z * matvec(z)).flatten(1).sum(1))
    of_draws = torch.stack(found)
    error = of_draws.std(0) / draws**0.5 if draws > 1 else torch.full_like(of_draws[0], torch.nan)
    return Trace(of_draws.mean(0), error)
