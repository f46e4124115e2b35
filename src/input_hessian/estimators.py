"""Operator norms and eigenvalues of per-example input Hessians from Hessian-vector products.

``||H||`` is the operator norm, ``max |eigenvalue|``.  All estimators work on Hessian-vector products
(HVPs) and on a whole batch at once, one eigenproblem per image.

    >>> hessian = InputHessian(model, images, labels)           # doctest: +SKIP
    >>> operator_norm(hessian, hvps=8).norm                     # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from input_hessian.hessian import InputHessian, MatVec, differentiating
from input_hessian.layerwise import LayerwiseHessian
from input_hessian.vectors import largest_entry, normalize, vector_norm


class OperatorNorm(NamedTuple):
    """An estimate of ``||H||`` for every image of a batch.

    Attributes:
        norm: ``||H v||_2`` at the returned ``v``, ``[B]``: a lower bound of ``||H||``, in nats per
            squared pixel unit.
        vector: ``v`` with ``||v||_2 = 1``, ``[B, *image]``, without a graph.
        residual: ``[B]``; the absolute value of some eigenvalue lies within ``2 * residual`` of
            ``norm``.  A small one means that an eigenvalue was found, not that it is the largest.
            None with ``create_graph``: a training step does not pay for it.
        converged: ``residual <= tolerance * norm``, ``[B]``, bool; all False without a tolerance.
        hvps: Hessian-vector products spent per image.
    """

    norm: Tensor
    vector: Tensor
    residual: Tensor | None
    converged: Tensor
    hvps: int


def power(
    matvec: MatVec,
    start: Tensor,
    *,
    hvps: int,
    tolerance: float | None = None,
    create_graph: bool = False,
) -> OperatorNorm:
    """Power iteration ``v <- H v / ||H v||``; ``||H v||`` never decreases from step to step.

    Eigenvalues ``+a`` and ``-a`` make ``v`` alternate between two vectors while ``||H v||`` is
    already right, so the residual also accepts the pair (previous v, v) as singular vectors.

    Args:
        matvec: ``v -> H v`` on ``[B, *image]``; must accept ``create_graph``.
        start: first ``v``, ``[B, *image]``, of any length.
        hvps: budget, at least 1; the last product is always spent on the returned vector.
        tolerance: stop early once every image has converged (each step then waits for the device).
        create_graph: make ``norm`` differentiable in the parameters.  ``v`` stays constant: at the
            maximum, the derivative of ``||H v||`` needs no derivative of ``v`` (Danskin).  Not with
            a tolerance.
    """
    _check_fixed(tolerance, create_graph)
    vector, before = normalize(start), None
    for spent in range(1, hvps + 1):
        product = matvec(vector, create_graph=create_graph and spent == hvps)
        if spent == hvps or tolerance is not None:
            result = _result(product, vector, spent, tolerance, create_graph, before)
            if spent == hvps or result.converged.all():
                break
        vector, before = normalize(product), (vector, product)
    return result


def lanczos(
    matvec: MatVec,
    start: Tensor,
    *,
    hvps: int,
    tolerance: float | None = None,
    create_graph: bool = False,
) -> OperatorNorm:
    """Lanczos with full reorthogonalisation: the best vector of ``start``'s Krylov space.

    ``hvps - 1`` products build the space.  With ``s`` its unit vector of largest ``||H s||``, found
    from the products already paid for, the last product is spent on ``v = H s / ||H s||``.  As
    ``||H v|| >= ||H s||``, the norm never decreases with the budget and is at least the power
    iteration's with one product less.  (The Ritz vector, largest ``|s'H s|``, guarantees neither
    when ``H`` is indefinite.)  Arguments as in :func:`power`.
    Source: Golub & Van Loan, *Matrix Computations*, 4th ed., section 10.1.
    """
    _check_fixed(tolerance, create_graph)
    vector, before, spent = normalize(start), None, 0
    for basis, products, complete in _krylov(matvec, start, hvps - 1):
        spent = products.shape[1]
        if spent == hvps - 1 or tolerance is not None:
            weights = _largest_combination(products)
            best, image = ((weights @ rows).squeeze(1) for rows in (basis, products))
            vector, before = normalize(image).view_as(start), (best, image)
            if tolerance is not None:
                converged = _converged(vector_norm(image), _residual(image, best), tolerance)
                if (complete | converged).all():
                    break
    product = matvec(vector, create_graph=create_graph)
    return _result(product, vector, spent + 1, tolerance, create_graph, before)


def ascent(
    matvec: MatVec,
    start: Tensor,
    *,
    hvps: int,
    step_size: float,
    tolerance: float | None = None,
    create_graph: bool = False,
) -> OperatorNorm:
    """Gradient ascent on ``||H v||`` over the unit sphere, the algorithm of arXiv 2009.06571.

    ``v <- normalize(v + step_size * d||H v||/dv)`` with ``d||H v||/dv = H H v / ||H v||``, two
    products per step and one on the returned vector (an even budget leaves one unspent).  The
    update scales with ``||H||``, so a fixed step achieves less and less as the penalty succeeds.
    Arguments as in :func:`power`; ``step_size`` in squared pixel units per nat.
    """
    _check_fixed(tolerance, create_graph)
    vector = normalize(start)
    for spent in range(1, hvps + 1, 2):
        last = spent + 2 > hvps
        product = matvec(vector, create_graph=create_graph and last)
        if last or tolerance is not None:
            result = _result(product, vector, spent, tolerance, create_graph)
            if last or result.converged.all():
                break
        vector = normalize(vector + step_size * matvec(normalize(product)))
    return result


METHODS: dict[str, Callable[..., OperatorNorm]] = {
    "power": power,
    "lanczos": lanczos,
    "ascent": ascent,
}


@differentiating
def operator_norm(
    hessian: InputHessian | LayerwiseHessian,
    *,
    method: str = "power",
    start: str | Tensor = "softmax",
    hvps: int = 2,
    tolerance: float | None = None,
    create_graph: bool = False,
    generator: torch.Generator | None = None,
    step_size: float | None = None,
    difference_step: float | None = None,
) -> OperatorNorm:
    """Estimate ``||H||`` of every image of the batch.

    Args:
        hessian: derivatives of the batch, see :func:`input_hessian.layerwise.derivatives`.
        method: ``"power"``, ``"lanczos"`` or ``"ascent"``.
        start: ``"gradient"`` (``g = J'(p - y)`` is already there and, for cross-entropy, shares its
            range with the Gauss-Newton part ``J'(diag p - p p')J`` of ``H``), ``"softmax"``
            (``J'w`` with ``w`` from :func:`softmax_eigenvector`: closer to that part's top
            eigenvector, for one more pass from the logits to the image), ``"random"`` (standard
            normal) or a tensor ``[B, *image]``.
        hvps: budget in Hessian-vector products, at least 1.
        tolerance: relative residual at which to stop early.
        create_graph: make ``norm`` differentiable in the parameters, for a training penalty.
        generator: source of the random start.
        step_size: required by ``"ascent"``, refused by the others; in squared pixel units per nat.
        difference_step: replace each product by a finite difference of the gradient over this step,
            see :meth:`InputHessian.difference`; only with an :class:`InputHessian`.

    Returns:
        The estimate and how good it is, see :class:`OperatorNorm`.

    Raises:
        ValueError: for an unknown method or start, an empty budget, a tolerance together with
            ``create_graph`` (a training step has a fixed budget), a start of the wrong shape, the
            softmax start with another loss than the cross-entropy, or a step that is missing,
            misplaced or not positive.
    """
    _check_budget(method, hvps, step_size)
    _check_fixed(tolerance, create_graph)
    matvec: MatVec = hessian.matvec
    if difference_step is not None:
        if not isinstance(hessian, InputHessian):
            raise ValueError(
                "difference_step: expected derivatives by InputHessian, got "
                f"{type(hessian).__name__}; build InputHessian(model, images, labels)"
            )
        if not difference_step > 0:
            raise ValueError(f"difference_step: expected a positive length, got {difference_step}")
        matvec = hessian.difference(difference_step)
    if isinstance(start, Tensor):
        if start.shape != hessian.gradient.shape:
            expected, got = tuple(hessian.gradient.shape), tuple(start.shape)
            raise ValueError(f"start: expected a tensor of shape {expected}, got {got}")
        vector = start
    elif start == "gradient":
        vector = hessian.gradient.detach()
    elif start == "softmax":
        if isinstance(hessian, InputHessian) and hessian.loss_function is not None:
            raise ValueError(
                "start: softmax assumes the cross-entropy; expected gradient, random or a tensor "
                "with another loss"
            )
        logits = hessian.logits[: len(hessian.gradient)]  # of the sampled images
        vector = hessian.pullback(softmax_eigenvector(logits))
    elif start == "random":
        g = hessian.gradient
        vector = torch.randn(g.shape, dtype=g.dtype, device=g.device, generator=generator)
    else:
        raise ValueError(f"start: expected gradient, softmax, random or a tensor, got {start!r}")
    options = {} if step_size is None else {"step_size": step_size}
    return METHODS[method](
        matvec, vector, hvps=hvps, tolerance=tolerance, create_graph=create_graph, **options
    )


@dataclass(frozen=True)
class Estimator:
    """How a penalty estimates ``||H||`` in every training step; see :func:`operator_norm`.

    Args:
        method: ``"power"``, ``"lanczos"`` or ``"ascent"``.
        start: ``"gradient"``, ``"softmax"`` or ``"random"``.
        hvps: budget in Hessian-vector products per image.
        step_size: of ``"ascent"`` alone, in squared pixel units per nat.

    Raises:
        ValueError: for an empty budget, or a step size that is missing, misplaced or not positive.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}  # see input_hessian.penalties.Penalty

    method: Literal["power", "lanczos", "ascent"] = "power"
    start: Literal["gradient", "softmax", "random"] = "softmax"
    hvps: int = 2
    step_size: float | None = None

    def __post_init__(self):
        _check_budget(self.method, self.hvps, self.step_size)

    @property
    def in_row_space(self) -> bool:
        """Whether it finds in the first layer's row space the norm that it would find in pixels.

        Not from a random start, most of which lies outside the row space.
        """
        return self.start != "random"

    def differentiable_norm(
        self, hessian: InputHessian | LayerwiseHessian, generator: torch.Generator | None
    ) -> Tensor:
        """Return the estimate of every image, ``[B]``, differentiable in the parameters."""
        return operator_norm(hessian, create_graph=True, generator=generator, **asdict(self)).norm


def _check_budget(method: str, hvps: int, step_size: float | None) -> None:
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if not (isinstance(hvps, int) and hvps >= 1):
        raise ValueError(f"hvps: expected at least 1 Hessian-vector product, got {hvps!r}")
    if (step_size is not None) != (method == "ascent"):
        raise ValueError(f"step_size: needed by ascent alone, got {step_size} with {method}")
    if step_size is not None and not 0 < step_size < float("inf"):
        raise ValueError(f"step_size: expected a finite number above 0, got {step_size}")


class LargestEigenvalue(NamedTuple):
    """An estimate of ``lambda_max(H)`` for every image of a batch.

    Attributes:
        value: Rayleigh quotient ``v'H v``, ``[B]``: a lower bound of the largest eigenvalue, with
            its sign, in nats per squared pixel unit.
        vector: ``v`` with ``||v||_2 = 1``, ``[B, *image]``.
        residual: ``||H v - value v||_2``, ``[B]``; some eigenvalue lies within it of ``value``.
        converged: ``residual <= tolerance * max ||H q||`` over the vectors ``q`` of Lanczos, a lower
            bound of ``||H||``, ``[B]``, bool; all False without a tolerance.
        hvps: Hessian-vector products spent per image.
    """

    value: Tensor
    vector: Tensor
    residual: Tensor
    converged: Tensor
    hvps: int


@differentiating
def largest_eigenvalue(
    matvec: MatVec, start: Tensor, *, hvps: int, tolerance: float | None = None
) -> LargestEigenvalue:
    """Return the largest Ritz value of ``start``'s Krylov space: Lanczos, all products for it.

    Arguments as in :func:`power`.  Start at random: a start without a component along the top
    eigenvector (another eigenvector, say) never finds it.
    Source: Golub & Van Loan, *Matrix Computations*, 4th ed., section 10.1.

    Raises:
        ValueError: for an empty budget.
    """
    _check_budget("lanczos", hvps, None)
    for basis, products, complete in _krylov(matvec, start, hvps):
        spent = products.shape[1]
        if spent == hvps or tolerance is not None:
            value, vector, residual = _largest_ritz_pair(basis, products)
            norm = vector_norm(products.flatten(0, 1)).view(products.shape[:2]).amax(1)
            converged = _converged(norm, residual, tolerance)
            if tolerance is not None and (complete | converged).all():
                break
    return LargestEigenvalue(value, vector.view_as(start), residual, converged, spent)


def _krylov(matvec: MatVec, start: Tensor, hvps: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield, after each product, the orthonormal basis, the products, and whether that was all.

    Full reorthogonalisation.  Basis and products are ``[B, K, d]`` after ``K`` products; beyond an
    image's invariant subspace its basis vectors are zero.  After the last product, which no basis
    vector follows, nothing says whether that was all.
    """
    q = normalize(start).flatten(1)
    basis, products = (q.new_empty(len(q), hvps, q.shape[1]) for _ in range(2))
    complete = q.new_zeros(len(q), dtype=torch.bool)
    for k in range(hvps):
        product = matvec(q.view_as(start)).flatten(1)
        basis[:, k], products[:, k] = q, product
        found = basis[:, : k + 1]
        if k + 1 < hvps:
            rest = product[:, None] / largest_entry(product)[:, :, None]
            length = torch.linalg.vector_norm(rest, dim=2, keepdim=True)
            for _ in range(2):  # once loses orthogonality in float32, twice is enough (Parlett)
                rest = torch.baddbmm(rest, rest @ found.mT, found, alpha=-1)
            left = torch.linalg.vector_norm(rest, dim=2, keepdim=True)
            # A complete invariant subspace leaves rounding alone, which must not be amplified.
            complete = left <= 10 * torch.finfo(rest.dtype).eps * length
            q = (rest * (1 / left).masked_fill(complete, 0)).squeeze(1)
            complete = complete.flatten()
        yield found, products[:, : k + 1], complete


def softmax_eigenvector(logits: Tensor, steps: int = 8) -> Tensor:
    """Return, nearly, the top eigenvector of ``S = diag p - p p'`` with ``p = softmax(logits)``.

    Power iteration from the unit vector of the likeliest class ``c``, the largest diagonal entry of
    ``S``.  It runs on ``S / S_cc``, whose norm lies in [1, 2] (Gershgorin), and on the differences
    ``u_k = w_k - w_c``, which is enough as ``S 1 = 0``: nothing cancels, underflows or is divided
    by zero where the softmax saturates, however small ``S`` itself.

    Args:
        logits: ``[B, K]`` with ``K >= 2``.
        steps: number of products with ``S``.

    Returns:
        ``w``, ``[B, K]``, of any length, without a graph; its entries sum to zero.
    """
    logits = logits.detach()
    top = torch.zeros_like(logits).scatter_(1, logits.argmax(1, keepdim=True), 1)
    below = logits.masked_fill(top > 0, -torch.inf)
    log_sum = below.logsumexp(1, keepdim=True)
    others = (below - log_sum).exp()  # p, given that it is not c
    odds = (log_sum - logits.amax(1, keepdim=True)).exp()  # (1 - p_c) / p_c
    rest, scaled = odds / (1 + odds), others * (1 + odds)  # 1 - p_c and others / p_c
    u = 1 - top
    for _ in range(steps):
        mean = (others * u).sum(1, keepdim=True)
        u = torch.addcmul(mean, scaled, torch.addcmul(u, rest, mean, value=-1))
    u = u * (1 - top)
    return u - u.mean(1, keepdim=True)


def _largest_combination(products: Tensor) -> Tensor:
    """Return the unit weights ``w`` of largest ``||sum_k w_k p_k||``: ``[B, K, d] -> [B, 1, K]``."""
    scaled = products / largest_entry(products.flatten(1))[:, :, None]
    gram = (scaled @ scaled.mT).nan_to_num()  # eigh rejects NaN; the combination will show it
    return torch.linalg.eigh(gram).eigenvectors[:, None, :, -1]


def _largest_ritz_pair(basis: Tensor, products: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest Ritz value, its vector and its residual.

    Args:
        basis: ``Q``, ``[B, K, d]``: orthonormal or zero rows.
        products: ``H Q``, ``[B, K, d]``.
    """
    projected = _projected(basis, products)
    # A zero row would pass for an eigenvalue 0, the largest where all others are negative.
    absent = (basis == 0).all(2).to(basis.dtype)
    below = torch.linalg.matrix_norm(projected) + 1
    projected = projected - torch.diag_embed(absent * below[:, None])
    weights = torch.linalg.eigh(projected).eigenvectors[:, :, -1:]
    vector, image = ((weights * rows).sum(1) for rows in (basis, products))
    value = (vector * image).sum(1)
    return value, vector, vector_norm(image - value[:, None] * vector)


def _projected(basis: Tensor, products: Tensor) -> Tensor:
    """Return ``Q'H Q`` up to a factor, ``[B, K, K]``; 0 for NaN, which eigh rejects and values show."""
    projected = (products / largest_entry(products.flatten(1))[:, :, None]) @ basis.mT
    return ((projected + projected.mT) / 2).nan_to_num()


def _result(
    product: Tensor,
    vector: Tensor,
    hvps: int,
    tolerance: float | None,
    create_graph: bool,
    before: tuple[Tensor, Tensor] | None = None,
) -> OperatorNorm:
    """Return what the product ``H v`` says of the norm; ``before`` as in :func:`_residual`."""
    norm = vector_norm(product)
    residual = None if create_graph else _residual(product, vector, before)
    return OperatorNorm(norm, vector, residual, _converged(norm, residual, tolerance), hvps)


def _residual(
    product: Tensor, vector: Tensor, before: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Return the residual of the unit vector ``v``, from ``H v`` and ``v``.

    It is ``||H v - (v'H v) v||``.  If ``v = H u / ||H u||`` with a unit vector ``u``, and ``before``
    is ``(u, H u)``, then ``|| H v - ||H u|| u ||``, where that is smaller.
    """
    product, vector = product.flatten(1), vector.flatten(1)
    rayleigh = (product * vector).sum(1, keepdim=True)
    residual = vector_norm(product - rayleigh * vector)
    if before is not None:
        u, image = (tensor.flatten(1) for tensor in before)
        residual = torch.minimum(residual, vector_norm(product - vector_norm(image)[:, None] * u))
    return residual


def _check_fixed(tolerance: float | None, create_graph: bool) -> None:
    """Raise ValueError for a tolerance in a training step."""
    if create_graph and tolerance is not None:
        raise ValueError("tolerance: not with create_graph, give a fixed budget hvps instead")


def _converged(norm: Tensor, residual: Tensor | None, tolerance: float | None) -> Tensor:
    if tolerance is None or residual is None:
        return torch.zeros_like(norm, dtype=torch.bool)
    return (residual <= tolerance * norm) & norm.isfinite()
