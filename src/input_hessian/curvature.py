"""Hessian-vector products and operator norms of per-example input Hessians.

For one image ``x`` with label ``y`` the loss is the cross-entropy ``ell(x)`` of the logits, its
input gradient is ``g = grad_x ell`` and its input Hessian ``H = hess_x ell`` (d x d, symmetric,
indefinite).  ``||H||`` is the operator norm, ``max |eigenvalue|``.  Nothing here forms ``H``: all
estimators work on Hessian-vector products (HVPs) and on a whole batch at once, one eigenproblem
per image.

    >>> hessian = InputHessian(model, images, labels)           # doctest: +SKIP
    >>> operator_norm(hessian, hvps=8).norm                     # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

MatVec = Callable[..., Tensor]  # v -> H v, with the keyword create_graph


class InputHessian:
    """Loss, gradient and Hessian-vector products of a batch, from one network evaluation.

    The loss is summed over the batch before it is differentiated, so the batch's Hessian is block
    diagonal and each image sees only its own block.  A network that draws dropout masks is
    evaluated once, so that everything here but :meth:`difference` belongs to one and the same
    thinned network.  Attention runs by PyTorch's plain kernel: the fused ones have no second
    derivative.

    Args:
        model: maps images ``[B, *image]`` to logits ``[B, K]``, image by image.
        images: ``[B, *image]`` in pixel units, floating point.
        labels: ``[B]`` class indices, int64.

    Attributes:
        logits: ``[B, K]``.
        loss: cross-entropy per image, ``[B]``, in nats; differentiable in the parameters.
        gradient: ``g``, ``[B, *image]``, in nats per pixel unit; differentiable in the parameters.

    Raises:
        ValueError: if ``model`` holds a layer that couples the images of a batch (BatchNorm with
            batch statistics): there, one image has no Hessian of its own; for integer images,
            labels that are no class indices (of labels on a GPU, values are not looked at), or
            outputs that are no logits of two classes or more.
    """

    def __init__(self, model: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor):
        if isinstance(model, nn.Module):
            reject_batch_coupling(model)
        check_batch(images, labels)
        self._model, self._labels = model, labels
        self._images = images.detach().requires_grad_()
        with sdpa_kernel(SDPBackend.MATH):
            self.logits = model(self._images)
        check_logits(self.logits, labels)
        self.loss = F.cross_entropy(self.logits, labels, reduction="none")
        (self.gradient,) = torch.autograd.grad(self.loss.sum(), self._images, create_graph=True)

    def matvec(self, vector: Tensor, *, create_graph: bool = False) -> Tensor:
        """Return ``H v`` for every image, reverse over reverse: ``grad_x <g(x), v>``.

        Args:
            vector: ``v``, ``[B, *image]``.
            create_graph: keep the graph, so that the product can be differentiated once more.

        Returns:
            ``[B, *image]``.
        """
        (product,) = torch.autograd.grad(
            self.gradient,
            self._images,
            grad_outputs=vector,
            create_graph=create_graph,
            retain_graph=True,
        )
        return product

    def pullback(self, cotangents: Tensor) -> Tensor:
        """Return ``J'w``, the image gradient of ``w'z``, for logit cotangents ``w``, ``[B, K]``."""
        (vector,) = torch.autograd.grad(
            self.logits, self._images, grad_outputs=cotangents, retain_graph=True
        )
        return vector

    def difference(self, step: float) -> MatVec:
        """Return ``v -> (g(x + step v) - g(x)) / step``, an approximation of :meth:`matvec`.

        One more network evaluation and no third derivative in training.  Its error is at most
        ``step ||v||^2 / 2`` times the largest third derivative on the way, so ``||H v||`` from it
        is no longer a lower bound.
        Source: Moosavi-Dezfooli et al., *Robustness via curvature regularization, and vice versa*,
        CVPR 2019.

        Args:
            step: length of the step along a unit vector ``v``, in pixel units.

        Raises:
            ValueError: if the network draws dropout masks: the difference would mostly be that of
                two masks.
        """
        if isinstance(self._model, nn.Module):
            _reject_dropout(self._model)

        def matvec(vector: Tensor, *, create_graph: bool = False) -> Tensor:
            moved = InputHessian(self._model, self._images + step * vector, self._labels)
            product = (moved.gradient - self.gradient) / step
            return product if create_graph else product.detach()

        return matvec


class OperatorNorm(NamedTuple):
    """An estimate of ``||H||`` for every image of a batch.

    Attributes:
        norm: ``||H v||_2`` at the returned ``v``, ``[B]``: a lower bound of ``||H||``, in nats per
            squared pixel unit.
        vector: ``v`` with ``||v||_2 = 1``, ``[B, *image]``, without a graph.
        residual: ``[B]``; the absolute value of some eigenvalue lies within ``2 * residual`` of
            ``norm``.  A small one means that an eigenvalue was found, not that it is the largest.
        converged: ``residual <= tolerance * norm``, ``[B]``, bool; all False without a tolerance.
        hvps: Hessian-vector products spent per image.
    """

    norm: Tensor
    vector: Tensor
    residual: Tensor
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
        tolerance: stop early once every image has converged (costs a host synchronisation a step).
        create_graph: make ``norm`` differentiable in the parameters.  ``v`` stays constant: at the
            maximum, the derivative of ``||H v||`` needs no derivative of ``v`` (Danskin).
    """
    vector, before = normalize(start), None
    for spent in range(1, hvps + 1):
        product = matvec(vector, create_graph=create_graph and spent == hvps)
        if spent == hvps or tolerance is not None:
            norm, residual = _norm_and_residual(product, vector, before)
            converged = _converged(norm, residual, tolerance)
            if spent == hvps or converged.all():
                break
        vector, before = normalize(product), (vector, product)
    return OperatorNorm(norm, vector, residual, converged, spent)


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
    iteration's with one product less.  (The Ritz vector, largest ``|s'H s|``, promises neither when
    ``H`` is indefinite.)  Arguments as in :func:`power`.
    Source: Golub & Van Loan, *Matrix Computations*, 4th ed., section 10.1.
    """
    vector, before, spent = normalize(start), None, 0
    for basis, products, complete in _krylov(matvec, start, hvps - 1):
        spent = len(products)
        if spent == hvps - 1 or tolerance is not None:
            weights = _largest_combination(torch.stack(products, 1))
            best = torch.einsum("bk,kbd->bd", weights, torch.stack(basis))
            image = torch.einsum("bk,kbd->bd", weights, torch.stack(products))
            vector, before = normalize(image).view_as(start), (best, image)
            if tolerance is not None:
                norm, residual = _norm_and_residual(image, best)
                if (complete | _converged(norm, residual, tolerance)).all():
                    break
    product = matvec(vector, create_graph=create_graph)
    norm, residual = _norm_and_residual(product, vector, before)
    converged = _converged(norm, residual, tolerance)
    return OperatorNorm(norm, vector, residual, converged, spent + 1)


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
    products a step and one on the returned vector (an even budget leaves one unspent).  The update
    scales with ``||H||``, so a fixed step does ever less as the penalty succeeds.  Arguments as in
    :func:`power`; ``step_size`` in squared pixel units per nat.
    """
    vector = normalize(start)
    for spent in range(1, hvps + 1, 2):
        last = spent + 2 > hvps
        product = matvec(vector, create_graph=create_graph and last)
        norm, residual = _norm_and_residual(product, vector)
        converged = _converged(norm, residual, tolerance)
        if last or (tolerance is not None and converged.all()):
            break
        vector = normalize(vector + step_size * matvec(normalize(product)))
    return OperatorNorm(norm, vector, residual, converged, spent)


METHODS = {"power": power, "lanczos": lanczos, "ascent": ascent}


def operator_norm(
    hessian: InputHessian,
    *,
    method: str = "power",
    start: str | Tensor = "gradient",
    hvps: int = 1,
    tolerance: float | None = None,
    create_graph: bool = False,
    generator: torch.Generator | None = None,
    step_size: float | None = None,
    difference_step: float | None = None,
) -> OperatorNorm:
    """Estimate ``||H||`` of every image of the batch.

    Args:
        hessian: the batch's :class:`InputHessian`.
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
        step_size: of ``"ascent"``, and of it alone.
        difference_step: replace each product by a finite difference of the gradient over this step,
            see :meth:`InputHessian.difference`.

    Raises:
        ValueError: for an unknown method or start, an empty budget, a tolerance together with
            ``create_graph`` (a training step has a fixed budget), a start of the wrong shape, or a
            step that is missing, misplaced or not positive.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if hvps < 1:
        raise ValueError(f"hvps: expected at least 1 Hessian-vector product, got {hvps}")
    if create_graph and tolerance is not None:
        raise ValueError("tolerance: not with create_graph, give a fixed budget hvps instead")
    if (step_size is not None) != (method == "ascent"):
        raise ValueError(f"step_size: needed by ascent alone, got {step_size} with {method}")
    if difference_step is not None and not difference_step > 0:
        raise ValueError(f"difference_step: expected a positive length, got {difference_step}")
    if isinstance(start, Tensor):
        if start.shape != hessian.gradient.shape:
            expected, got = tuple(hessian.gradient.shape), tuple(start.shape)
            raise ValueError(f"start: expected a tensor of shape {expected}, got {got}")
        vector = start
    elif start == "gradient":
        vector = hessian.gradient.detach()
    elif start == "softmax":
        vector = hessian.pullback(softmax_eigenvector(hessian.logits))
    elif start == "random":
        g = hessian.gradient
        vector = torch.randn(g.shape, dtype=g.dtype, device=g.device, generator=generator)
    else:
        raise ValueError(f"start: expected gradient, softmax, random or a tensor, got {start!r}")
    matvec = hessian.matvec if difference_step is None else hessian.difference(difference_step)
    options = {} if step_size is None else {"step_size": step_size}
    return METHODS[method](
        matvec, vector, hvps=hvps, tolerance=tolerance, create_graph=create_graph, **options
    )


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


def largest_eigenvalue(
    matvec: MatVec, start: Tensor, *, hvps: int, tolerance: float | None = None
) -> LargestEigenvalue:
    """Return the largest Ritz value of ``start``'s Krylov space: Lanczos, all products for it.

    Arguments as in :func:`power`.  Start at random: a start without a component along the top
    eigenvector (another eigenvector, say) never finds it.
    Source: Golub & Van Loan, *Matrix Computations*, 4th ed., section 10.1.
    """
    for basis, products, complete in _krylov(matvec, start, hvps):
        if len(products) == hvps or tolerance is not None:
            rows = torch.stack(products, 1)
            value, vector, residual = _largest_ritz_pair(torch.stack(basis, 1), rows)
            norm = torch.stack([vector_norm(product) for product in products]).amax(0)
            converged = _converged(norm, residual, tolerance)
            if tolerance is not None and (complete | converged).all():
                break
    return LargestEigenvalue(value, vector.view_as(start), residual, converged, len(products))


def _krylov(
    matvec: MatVec, start: Tensor, hvps: int
) -> Iterator[tuple[list[Tensor], list[Tensor], Tensor]]:
    """Yield, after each product, the orthonormal basis, the products, and whether that was all.

    Full reorthogonalisation.  Vectors are ``[B, d]``; beyond an image's invariant subspace its
    basis vectors are zero.
    """
    basis, products = [normalize(start).flatten(1)], []
    for _ in range(hvps):
        product = matvec(basis[-1].view_as(start)).flatten(1)
        products.append(product)
        length = vector_norm(product)
        for _ in range(2):  # once loses orthogonality in float32, twice is enough (Parlett)
            for q in basis:
                product = product - q * (q * product).sum(1, keepdim=True)
        # An invariant subspace is complete: what is left is rounding, and must not be amplified.
        complete = vector_norm(product) <= 10 * torch.finfo(product.dtype).eps * length
        yield basis, products, complete
        basis.append(normalize(product).masked_fill(complete[:, None], 0))


def check_batch(images: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless images are floating point and labels are int64 ``[B]``."""
    if not images.is_floating_point():
        raise ValueError(f"images: expected floating point in [0, 1], got {images.dtype}")
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"labels: expected one class index per image, int64 of shape ({len(images)},), "
            f"got {labels.dtype} of shape {tuple(labels.shape)}"
        )


def check_logits(logits: Tensor, labels: Tensor) -> None:
    """Raise ValueError unless logits are ``[B, K]``, ``K >= 2``, and labels lie in ``[0, K)``."""
    if logits.ndim != 2 or len(logits) != len(labels) or logits.shape[1] < 2:
        raise ValueError(
            f"model: expected logits of two classes or more, ({len(labels)}, K), got an output of "
            f"shape {tuple(logits.shape)}"
        )
    # reading values from a GPU would wait for it; there, PyTorch's own assertion must do
    classes = logits.shape[1]
    if labels.device.type == "cpu" and ((labels < 0) | (labels >= classes)).any():
        low, high = labels.min().item(), labels.max().item()
        raise ValueError(f"labels: expected 0 to {classes - 1}, got values from {low} to {high}")


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
        u = scaled * (u - rest * mean) + mean
    u = u * (1 - top)
    return u - u.mean(1, keepdim=True)


def vector_norm(vectors: Tensor) -> Tensor:
    """Return ``||v||_2`` of every image, ``[B, *image] -> [B]``; its derivative at zero is zero.

    Scaled by the largest entry: the entries of a saturated softmax's Hessian (1e-30 in float32)
    would underflow when squared.
    """
    flat = vectors.flatten(1)
    scale = _largest_entry(flat)
    return torch.linalg.vector_norm(flat / scale, dim=1) * scale.squeeze(1)


def normalize(vectors: Tensor) -> Tensor:
    """Return ``v / ||v||_2`` of every image, without a graph; zero becomes a constant vector."""
    flat = vectors.detach().flatten(1)
    flat = flat / _largest_entry(flat)
    length = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    zero = length == 0
    return ((flat + zero) / (length + zero * flat.shape[1] ** 0.5)).view_as(vectors)


def _largest_entry(flat: Tensor) -> Tensor:
    return flat.detach().abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny)


def _largest_combination(products: Tensor) -> Tensor:
    """Return the unit weights ``w`` of largest ``||sum_k w_k p_k||``: ``[B, K, d] -> [B, K]``."""
    scaled = products / _largest_entry(products.flatten(1))[:, :, None]
    gram = (scaled @ scaled.mT).nan_to_num()  # eigh rejects NaN; the combination will show it
    return torch.linalg.eigh(gram).eigenvectors[:, :, -1]


def _largest_ritz_pair(basis: Tensor, products: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest Ritz value, its vector and its residual.

    Args:
        basis: ``Q``, ``[B, K, d]``: orthonormal or zero rows.
        products: ``H Q``, ``[B, K, d]``.
    """
    projected = (products / _largest_entry(products.flatten(1))[:, :, None]) @ basis.mT
    projected = ((projected + projected.mT) / 2).nan_to_num()  # eigh rejects NaN; value shows it
    # A zero row would pass for an eigenvalue 0, the largest where all others are negative.
    absent = (basis == 0).all(2).to(basis.dtype)
    below = torch.linalg.matrix_norm(projected) + 1
    projected = projected - torch.diag_embed(absent * below[:, None])
    weights = torch.linalg.eigh(projected).eigenvectors[:, :, -1:]
    vector, image = ((weights * rows).sum(1) for rows in (basis, products))
    value = (vector * image).sum(1)
    return value, vector, vector_norm(image - value[:, None] * vector)


def _norm_and_residual(
    product: Tensor, vector: Tensor, before: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Return ``||H v||`` and the residual of ``v``, from ``H v`` and the unit vector ``v``.

    The residual is ``||H v - (v'H v) v||``.  If ``v = H u / ||H u||`` with a unit vector ``u``, and
    ``before`` is ``(u, H u)``, then ``|| H v - ||H u|| u ||``, where that is smaller.
    """
    norm = vector_norm(product)
    product, vector = product.detach().flatten(1), vector.flatten(1)
    rayleigh = (product * vector).sum(1, keepdim=True)
    residual = vector_norm(product - rayleigh * vector)
    if before is not None:
        u, image = (tensor.flatten(1) for tensor in before)
        residual = torch.minimum(residual, vector_norm(product - vector_norm(image)[:, None] * u))
    return norm, residual


def _converged(norm: Tensor, residual: Tensor, tolerance: float | None) -> Tensor:
    if tolerance is None:
        return torch.zeros_like(norm, dtype=torch.bool)
    return residual <= tolerance * norm.detach()


def reject_batch_coupling(model: nn.Module) -> None:
    """Raise ValueError if ``model`` holds a layer that couples the images of a batch."""
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
            module.training or module.running_mean is None
        ):
            raise ValueError(
                f"{type(module).__name__} {name!r} normalises with the statistics of the batch, so "
                "a single image has no input Hessian of its own; use model.eval() with running "
                "statistics, or a normalisation that works image by image (GroupNorm, LayerNorm)"
            )


def _reject_dropout(model: nn.Module) -> None:
    for name, module in model.named_modules():
        is_dropout = isinstance(module, nn.modules.dropout._DropoutNd)
        rate = module.p if is_dropout else getattr(module, "dropout", 0.0)  # attention, recurrent
        if module.training and isinstance(rate, float) and rate > 0:
            raise ValueError(
                f"{type(module).__name__} {name!r} draws new dropout masks at every evaluation, so "
                "a finite difference of gradients means nothing; use exact products (no "
                "difference_step) or model.eval()"
            )
