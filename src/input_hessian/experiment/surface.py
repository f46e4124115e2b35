"""A two-dimensional slice of one image's loss: along its gradient and its top Hessian eigenvector.

The slice is ``ell(x + a u + b v)`` with ``u = g / ||g||`` and ``v`` the part of the eigenvector that
is orthogonal to ``g``, normalised: the plane holds the image, the direction of steepest ascent and
that of largest curvature, however close the two are.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from input_hessian.experiment.inference import label_margin

PARALLEL = 1e-6  # below this, what is left of the eigenvector is rounding
BATCH = 500  # images evaluated at once


class Slice(NamedTuple):
    """Loss and margin on a grid of the plane; row ``i``, column ``j`` is ``(a_j, b_i)``.

    Attributes:
        loss: cross-entropy of the label in nats, ``[len(b), len(a)]``.
        margin: logit of the label minus the largest other; the decision boundary is where it is 0.
    """

    loss: Tensor
    margin: Tensor


def plane(gradient: Tensor, eigenvector: Tensor) -> tuple[Tensor, Tensor]:
    """Return the orthonormal directions ``u`` and ``v``, in the shape of one image.

    An eigenvector has no sign; it is taken with ``g'v >= 0``, before the part along ``g`` is removed.

    Args:
        gradient: ``g``, ``[*image]``, not zero.
        eigenvector: ``[*image]``, of any length.

    Raises:
        ValueError: if the shapes differ, or if the two span no plane: one is zero or not finite, or
            they are parallel up to rounding.
    """
    if gradient.shape != eigenvector.shape:
        raise ValueError(
            f"eigenvector: expected the gradient's shape {tuple(gradient.shape)}, "
            f"got {tuple(eigenvector.shape)}"
        )
    g, e = gradient.flatten(), eigenvector.flatten()
    # Scaled first: the gradient of a confident network underflows when squared.
    g, e = (w / w.abs().amax() for w in (g, e))
    u, e = g / g.norm(), e / e.norm()
    along = u @ e
    rest = e * torch.where(along < 0, -1.0, 1.0) - u * along.abs()
    rest = rest - u * (u @ rest)  # once more: after cancellation, once leaves a part along u
    length = rest.norm()
    if not length > PARALLEL:  # also for NaN
        raise ValueError(
            "expected a gradient and an eigenvector that span a plane, got vectors that are zero, not "
            f"finite or parallel (orthogonal part {length.item():.1e} of the eigenvector)"
        )
    return u.view_as(gradient), (rest / length).view_as(gradient)


@torch.no_grad()
def loss_slice(
    model: nn.Module,
    image: Tensor,
    label: Tensor,
    directions: tuple[Tensor, Tensor],
    offsets: Tensor,
) -> Slice:
    """Evaluate ``model`` at ``x + a u + b v`` for all ``a`` and ``b`` of ``offsets``.

    Pixels are not cut to [0, 1]: that would bend the plane.

    Args:
        model: network in evaluation mode, ``[B, *image] -> [B, K]``.
        image: ``x``, ``[*image]``, in the precision of the model.
        label: its class index, int64, a scalar.
        directions: ``u`` and ``v`` of :func:`plane`.
        offsets: in pixel units, ``[N]``.
    """
    u, v = directions
    b, a = (grid.flatten() for grid in torch.meshgrid(offsets, offsets, indexing="ij"))
    shape = (-1, *(1 for _ in image.shape))
    logits = torch.cat(
        [
            model(image + x.view(shape) * u + y.view(shape) * v)
            for x, y in zip(a.split(BATCH), b.split(BATCH), strict=True)
        ]
    )
    labels = label.expand(len(logits))
    loss = F.cross_entropy(logits, labels, reduction="none")
    square = (len(offsets), len(offsets))
    return Slice(loss.view(square), label_margin(logits, labels).view(square))
