"""Projected gradient descent on a batch of images, as adversarial training uses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from input_hessian.vectors import normalize, random_unit_vectors

Norm = Literal["linf", "l2"]


def check_attack(norm: str, steps: int) -> None:
    """Raise a ValueError for a norm other than ``linf`` and ``l2``, or fewer than one step."""
    if norm not in ("linf", "l2"):
        raise ValueError(f"norm: expected linf or l2, got {norm!r}")
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")


def pgd(
    gradient: Callable[[Tensor], Tensor],
    images: Tensor,
    *,
    radius: float,
    norm: Norm,
    steps: int,
    generator: torch.Generator | None,
) -> Tensor:
    """Return images ``[B, *image]`` of higher loss, each in the ball around the given one.

    The start is uniform in the ball.  Each step is ``2.5 radius / steps`` long, along the sign of
    the gradient (linf) or its direction (l2), and ends at the nearest point of the ball, clipped to
    [0, 1].
    Source: Madry et al., *Towards deep learning models resistant to adversarial attacks*, ICLR
    2018.

    Args:
        gradient: of the loss, per image, at the images that it is given; may carry a graph.
        images: ``[B, *image]`` in [0, 1].
        radius: of the ball, in pixel units.
        norm: ``"linf"`` or ``"l2"``.
        steps: number of steps.
        generator: source of the start.
    """
    moved = _inside(images, images + _start(images, radius, norm, generator), radius, norm)
    for _ in range(steps):
        along = gradient(moved).detach()
        direction = along.sign() if norm == "linf" else normalize(along)
        moved = _inside(images, moved + 2.5 * radius / steps * direction, radius, norm)
    return moved


def _start(images: Tensor, radius: float, norm: Norm, generator: torch.Generator | None) -> Tensor:
    """Return a perturbation per image, uniform in the ball."""
    if norm == "linf":
        return radius * (2 * _uniform(images, images.shape, generator) - 1)
    # a ball of radius r holds r^d of the volume
    length = _uniform(images, [len(images)], generator) ** (1 / images.shape[1:].numel())
    return torch.einsum("b,b...->b...", radius * length, random_unit_vectors(images, generator))


def _inside(images: Tensor, moved: Tensor, radius: float, norm: Norm) -> Tensor:
    """Return the nearest points of the ball, clipped to [0, 1], which does not leave it."""
    perturbation = moved - images
    if norm == "linf":
        perturbation = perturbation.clamp(-radius, radius)
    else:
        perturbation = perturbation.renorm(2, 0, radius)
    return (images + perturbation).clamp(0, 1)


def _uniform(like: Tensor, shape, generator: torch.Generator | None) -> Tensor:
    return torch.rand(shape, dtype=like.dtype, device=like.device, generator=generator)
