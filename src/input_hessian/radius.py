"""The radius at which a quadratic model crosses a level, and what it predicts for a network.

Along a unit direction ``u`` the quadratic model of the loss at ``x`` is
``ell + r g'u + r^2/2 u'H u``, at most ``b(r) = ell + ||g|| r + nu r^2/2`` with
``nu = lambda_max(H)``, whatever the sign of ``nu``.  Below the smallest root of ``b(r) = t`` no
perturbation lifts the model to ``t``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def crossing_radius(gap: Tensor, slope: Tensor, curvature: Tensor) -> Tensor:
    """Return the smallest ``r >= 0`` with ``slope r + curvature r^2/2 = gap``.

    In the form ``2 gap / (slope + sqrt(slope^2 + 2 curvature gap))``, in which nothing cancels and
    which holds for every sign of ``curvature``.  With ``q = sqrt(2 |curvature| gap)``, the root is
    ``hypot(slope, q)`` or that of ``(slope - q) (slope + q)``: no small slope is squared, which
    would underflow.

    Args:
        gap: ``[B]``, not negative.
        slope: ``[B]``, not negative, per pixel unit.
        curvature: ``[B]``, per squared pixel unit.

    Returns:
        ``[B]``, in pixel units; infinite where the level is never reached: ``curvature`` is so
        negative that the model turns back before it, or nothing grows at all.
    """
    q = curvature.abs().sqrt() * (2 * gap).sqrt()
    falling = (slope - q).clamp_min(0).sqrt() * (slope + q).sqrt()
    radius = 2 * gap / (slope + torch.where(curvature < 0, falling, torch.hypot(slope, q)))
    radius = torch.where((curvature < 0) & (slope < q), math.inf, radius)
    return torch.where(gap == 0, 0.0, radius)


def predicted_radius(
    loss: Tensor,
    gradient_norm: Tensor,
    largest_eigenvalue: Tensor,
    threshold: float = math.log(2),
) -> Tensor:
    """Return the l2 radius below which the loss's quadratic model stays under ``threshold``.

    With ``c = threshold - loss``, ``r = (||g||/nu) (sqrt(1 + 2 nu c/||g||^2) - 1)``.  While the
    cross-entropy is below ``log 2``, the label's probability exceeds 1/2 and the prediction is
    right.  The radius bounds the model, not the network: it predicts, it does not certify.  For a
    linear two-class softmax, where the smallest perturbation is known, it is never below that
    perturbation, and exceeds it without limit as the margin grows.
    Source: Moosavi-Dezfooli et al., *Robustness via curvature regularization, and vice versa*,
    CVPR 2019, theorem 1 (for ``nu > 0``).

    Args:
        loss: ``ell``, ``[B]``, in nats.
        gradient_norm: ``||g||_2``, ``[B]``, in nats per pixel unit.
        largest_eigenvalue: ``nu = lambda_max(H)``, ``[B]``, with its sign, in nats per squared
            pixel unit.
        threshold: ``t``, in nats.

    Returns:
        ``[B]``, in pixel units; 0 where ``loss >= threshold``, infinite where the model never
        reaches it.

    Raises:
        ValueError: if the three do not have one shape.
    """
    shapes = [tuple(values.shape) for values in (loss, gradient_norm, largest_eigenvalue)]
    if len(set(shapes)) > 1:
        raise ValueError(
            "loss, gradient_norm, largest_eigenvalue: expected one number per image in each, of one "
            f"shape, got {', '.join(map(str, shapes))}"
        )
    return crossing_radius((threshold - loss).clamp_min(0), gradient_norm, largest_eigenvalue)


def path_derivatives(
    function: Callable[[Tensor], Tensor], images: Tensor, direction: Tensor, distances: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``f(t) = function(x + t u)``, ``f'(t)`` and ``f''(t)`` at points of a path.

    ``f'(t) = u' grad`` and ``f''(t) = u' hess u`` at ``x + t u``, by double backpropagation over the
    scalars ``t``.

    Args:
        function: maps images ``[N, *image]`` to one number each, image by image; twice differentiable.
            It is called once, with the images of all points, image by image and point by point.
        images: ``x``, ``[B, *image]``.
        direction: ``u``, ``[B, *image]``.
        distances: ``t``, ``[B, T]``, in units of ``|u|``.

    Returns:
        Three tensors ``[B, T]``, without a graph.
    """
    with torch.enable_grad():
        t = distances.detach().clone().requires_grad_()
        points = images.unsqueeze(1) + torch.einsum("bt,b...->bt...", t, direction)
        value = function(points.flatten(0, 1)).reshape(t.shape)
        (slope,) = torch.autograd.grad(value.sum(), t, create_graph=True)
        curvature = torch.zeros_like(t)
        if slope.requires_grad:  # else f is linear
            # It may depend on the parameters alone, as for a linear network.
            (curvature,) = torch.autograd.grad(slope.sum(), t, materialize_grads=True)
    return value.detach(), slope.detach(), curvature


def path_radius(gap: Tensor, slope: Tensor, curvature: Tensor) -> Tensor:
    """Return a lower bound of how far a path must go until a function has risen by ``gap``.

    Along ``x + t u`` with ``|u| = 1``, ``f(r) - f(0) = f'(0) r + int_0^r (r - t) f''(t) dt``, at most
    ``|grad| r + M r^2/2`` with ``M = max f''`` on the path.  So where ``f`` has risen by ``gap``,
    ``r`` is at least the root of ``|grad| r + M r^2/2 = gap``: unlike
    :func:`predicted_radius`, a true statement about the network, for this path alone and up to the
    points at which ``f''`` is taken.

    Args:
        gap: ``[B]``; where it is not positive, the bound is 0.
        slope: ``|grad f(x)|``, ``[B]``.
        curvature: ``f''`` on the path, ``[B, T]``.
    """
    return crossing_radius(gap.clamp_min(0), slope, curvature.amax(1))
