"""Adversarial training: the loss at the end of a PGD attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from input_hessian.layerwise import derivatives
from input_hessian.penalties import Objective, Penalty
from input_hessian.vectors import normalize, random_unit_vectors


@dataclass(frozen=True)
class AdversarialTraining(Penalty):
    """``ell(x + d)``, where PGD seeks the ``d`` of largest loss in a ball of radius ``lam``.

    PGD starts uniformly in the ball, takes steps of length ``2.5 lam / steps``, and returns to the
    ball and to [0, 1] after each.  The perturbation is held constant (Danskin).

    ``loss`` is that of the clean image, as for every penalty, and ``penalty`` is what the
    attack adds.  Their sum is the adversarial loss, so ``loss`` needs no graph and has none: the
    penalty carries the whole parameter gradient.
    Source: Madry et al., *Towards deep learning models resistant to adversarial attacks*, ICLR
    2018.

    Args:
        lam: radius of the attack, in pixel units.
        norm: ``"linf"`` or ``"l2"``.
        steps: number of PGD steps.

    Raises:
        ValueError: for another norm, or fewer than one step.
    """

    lam: float
    norm: Literal["linf", "l2"]
    steps: int = 7

    def __post_init__(self):
        super().__post_init__()
        if self.norm not in ("linf", "l2"):
            raise ValueError(f"norm: expected linf or l2, got {self.norm!r}")
        if self.steps < 1:
            raise ValueError(f"steps: expected at least 1, got {self.steps}")

    def __call__(self, model, images, labels, generator):
        with torch.no_grad():
            logits = model(images)
            loss = F.cross_entropy(logits, labels, reduction="none")
        attacked = model(self._attack(model, images, labels, generator))
        penalty = F.cross_entropy(attacked, labels, reduction="none") - loss
        return Objective(loss, penalty, logits)

    def _attack(self, model, images, labels, generator) -> Tensor:
        moved = self._inside(images, images + self._start(images, generator))
        for _ in range(self.steps):
            gradient = derivatives(model, moved, labels).gradient.detach()
            direction = gradient.sign() if self.norm == "linf" else normalize(gradient)
            moved = self._inside(images, moved + 2.5 * self.lam / self.steps * direction)
        return moved

    def _start(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return a perturbation per image, uniform in the ball."""
        if self.norm == "linf":
            return self.lam * (2 * _uniform(images, images.shape, generator) - 1)
        # a ball of radius r holds r^d of the volume
        radius = _uniform(images, [len(images)], generator) ** (1 / images.shape[1:].numel())
        return torch.einsum(
            "b,b...->b...", self.lam * radius, random_unit_vectors(images, generator)
        )

    def _inside(self, images: Tensor, moved: Tensor) -> Tensor:
        """Return the nearest points of the ball, clipped to [0, 1], which does not leave it."""
        perturbation = moved - images
        if self.norm == "linf":
            perturbation = perturbation.clamp(-self.lam, self.lam)
        else:
            perturbation = perturbation.renorm(2, 0, self.lam)
        return (images + perturbation).clamp(0, 1)


def _uniform(like: Tensor, shape, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, dtype=like.dtype, device=like.device, generator=generator)
