"""Certified l2 radii of smooth fully connected networks, from a global bound on their curvature.

For a label ``y`` and another class ``t`` let ``f = z_y - z_t`` be the margin.  If everywhere
``hess_x f >= -k I``, then by Taylor ``f(x + d) >= f(x) - ||grad f(x)|| r - k r^2/2`` for
``||d|| = r``: no perturbation shorter than the right side's root reaches the decision boundary.
Looking at the gradient elsewhere as well certifies more: for ``0 < eta < 1/k`` the Lagrangian
``L(p) = ||p - x||^2/2 + eta f(p)`` is strongly convex with modulus ``1 - eta k``, so

    r^2/2 >= L(p) - ||grad L(p)||^2 / (2 (1 - eta k))        for every ``p`` and ``eta``,

because ``f = 0`` on the boundary.  A search for good ``p`` and ``eta`` need not converge to be
sound.  All this holds for the network itself, in exact arithmetic; here it is computed in float64.
Only the *negative* curvature of the margin matters.

Source: Singla & Feizi, *Second-order provable defenses against adversarial attacks*, ICML 2020,
whose dual problem is the maximum of the right side.  For two and more hidden layers the bound
below is tighter than theirs: it separates signs, and halves part of the product of layer norms.
"""

from __future__ import annotations

import copy
import itertools

import torch
from torch import Tensor, nn

from input_hessian.hessian import check_batch, check_logits, differentiating, usable
from input_hessian.layerwise import Flatten, FullyConnected, UnsupportedLayerError, layers
from input_hessian.radius import crossing_radius

BISECTIONS, DESCENTS = 6, 8  # three times as many of each lengthen the median radius by 0.2%


def curvature_bound(model: nn.Sequential) -> Tensor:
    """Return ``k`` with ``hess_x (z_y - z_t) >= -k[y, t] I`` at every image ``x``.

    With layers ``a_l = W_l h_{l-1} + b_l``, ``h_l = s(a_l)`` and ``J_l = d a_l/dx``, the Hessian is
    the sum over hidden layers of ``J_l' diag(u_l s''(a_l)) J_l``, where ``u_l = df/dh_l``.  For
    softplus ``0 <= s' <= 1`` and ``0 <= s'' <= beta/4``, so layer ``l`` contributes at least
    ``-beta/4 ||diag(sqrt n_l) J_l||^2`` with ``n_l`` a bound on the negative part of ``u_l``, from
    interval arithmetic backwards.  For ``J_l = W_l diag(s') J_{l-1}`` write ``2 s' = 1 + q`` with
    ``|q| <= 1``: then ``||A J_l|| <= (||A W_l J_{l-1}|| + ||A W_l|| ||J_{l-1}||) / 2``.

    Args:
        model: fully connected layers with softplus between them, on flattened images.

    Returns:
        ``[K, K]``, float64, per squared pixel unit; 0 on the diagonal and for a linear model.

    Raises:
        ValueError: for any other layer.
    """
    weights, betas = _layers(model)
    *hidden, last = weights
    bound = torch.zeros(len(last), len(last), dtype=torch.float64, device=last.device)
    for label, of_label in enumerate(last):
        low = high = of_label - last  # df/dh of the last hidden layer, one row per other class
        for depth in reversed(range(len(hidden))):
            root = torch.diag_embed((-low).clamp_min(0).sqrt())
            bound[label] += betas[depth] / 4 * _jacobian_norm(root, hidden[: depth + 1]).square()
            low, high = low.clamp_max(0), high.clamp_min(0)  # times s', between 0 and 1
            up, down = hidden[depth].clamp_min(0), hidden[depth].clamp_max(0)
            low, high = low @ up + high @ down, high @ up + low @ down
    return bound


@differentiating
def certified_radius(model: nn.Sequential, images: Tensor, labels: Tensor) -> Tensor:
    """Return the l2 radius within which no perturbation changes the prediction.

    The smallest of the other classes' radii.  The softplus of PyTorch is the identity where
    ``beta a > 20``, which moves a unit's output by at most ``2.1e-9 / beta``: like rounding, this
    is not accounted for.

    Args:
        model: as for :func:`curvature_bound`.
        images: ``[N, *image]``.
        labels: ``[N]``.

    Returns:
        ``[N]``, float64, in pixel units; 0 where the prediction is not the label.

    Raises:
        ValueError: for a network that :func:`curvature_bound` does not know, and for bad images,
            labels or logits, as :class:`input_hessian.hessian.InputHessian`.
    """
    bound = curvature_bound(model)
    check_batch(images, labels)
    network = copy.deepcopy(model).double().requires_grad_(False)
    images, labels = usable(images).double(), usable(labels)
    check_logits(network(images), labels)
    radius = torch.full((len(images),), torch.inf, dtype=torch.float64, device=images.device)
    for other in range(len(bound)):
        found = _radius_to_class(
            network, images, labels, other, bound[labels, other], bound[other, labels]
        )
        radius = torch.where(labels == other, radius, torch.minimum(radius, found))
    return radius


def _radius_to_class(
    network: nn.Sequential, images: Tensor, labels: Tensor, other: int, lower: Tensor, upper: Tensor
) -> Tensor:
    """Return the radius within which ``other`` does not overtake the label.

    From Taylor's closed form, whose multiplier starts a bisection for ``f(p) = 0``, where the dual
    is largest; ``p`` follows by gradient descent.

    Args:
        network: float64.
        images: ``[N, *image]``, float64.
        labels: ``[N]``.
        other: class ``t``.
        lower: ``k``, ``[N]``: ``hess f >= -k I``.
        upper: ``[N]``: ``hess f <= upper I``.
    """

    def margin(points: Tensor) -> tuple[Tensor, Tensor]:
        points = points.detach().requires_grad_()
        logits = network(points)
        value = logits.gather(1, labels[:, None]).squeeze(1) - logits[:, other]
        return value.detach(), torch.autograd.grad(value.sum(), points)[0].flatten(1)

    value, gradient = margin(images)
    correct = value > 0
    slope = gradient.norm(dim=1)
    radius = crossing_radius(value.clamp_min(0), slope, lower)
    low = radius / (slope + lower * radius)
    high = torch.where(lower > 0, 1 / lower, low)
    offset = torch.zeros_like(gradient)
    for _ in range(BISECTIONS):
        eta = (low + high) / 2
        for _ in range(DESCENTS):
            slope = offset + eta[:, None] * gradient
            lagrangian = offset.square().sum(1) / 2 + eta * value
            dual = lagrangian - slope.square().sum(1) / (2 * (1 - eta * lower))
            radius = torch.fmax(radius, (2 * dual).clamp_min(0).sqrt())  # ignores 0/0
            offset = offset - slope / (1 + eta * upper)[:, None]
            value, gradient = margin(images + offset.view_as(images))
        low, high = torch.where(value > 0, eta, low), torch.where(value > 0, high, eta)
    return radius.masked_fill(~correct, 0)


def _layers(model: nn.Sequential) -> tuple[list[Tensor], list[float]]:
    """Return the weights in float64 and, between them, the sharpness of each softplus."""
    expected = (
        "certificate: expected fully connected layers with softplus between them (architecture "
        "mlp, activation softplus), "
    )
    try:
        found = layers(model)
    except UnsupportedLayerError as error:
        raise ValueError(f"{expected}got another network: {error}") from error
    found = found[isinstance(found[0], Flatten) :] if found else []
    weighted, curved = found[::2], found[1::2]
    if (
        len(weighted) != len(curved) + 1
        or not all(isinstance(layer, FullyConnected) for layer in weighted)
        or not all(type(layer.module) is nn.Softplus and layer.module.beta > 0 for layer in curved)
        or any(a.weight.shape[0] != b.weight.shape[1] for a, b in itertools.pairwise(weighted))
    ):
        raise ValueError(f"{expected}got {', '.join(str(layer.module) for layer in found)}")
    if not all(layer.weight.isfinite().all() for layer in weighted):
        raise ValueError(f"{expected}all weights finite, got NaN or infinity in them")
    return [layer.weight.double() for layer in weighted], [layer.module.beta for layer in curved]


def _jacobian_norm(left: Tensor, weights: list[Tensor]) -> Tensor:
    """Bound ``||A J_l||`` over all images, for ``A`` ``[P, m, n]`` and the weights up to ``l``."""
    *below, weight = weights
    product = left @ weight
    if not below:
        return _norm(product)
    identity = torch.eye(len(below[-1]), dtype=weight.dtype, device=weight.device)
    apart = _norm(product) * _jacobian_norm(identity, below)
    return (_jacobian_norm(product, below) + apart) / 2


def _norm(matrices: Tensor) -> Tensor:
    """Return operator norms, from the smaller Gram matrix: ten times faster than singular values."""
    wide = matrices.shape[-2] <= matrices.shape[-1]
    gram = matrices @ matrices.mT if wide else matrices.mT @ matrices
    return torch.linalg.eigvalsh(gram)[..., -1].clamp_min(0).sqrt()
