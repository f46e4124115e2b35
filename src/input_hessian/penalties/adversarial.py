"""Adversarial training: the loss at the end of a PGD attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from input_hessian.hessian import checked_logits, differentiating, usable
from input_hessian.layerwise import derivatives
from input_hessian.penalties import Objective, Penalty
from input_hessian.pgd import check_attack, pgd


@dataclass(frozen=True)
class AdversarialTraining(Penalty):
    """``ell(x + d)``, where PGD seeks the ``d`` of largest loss in a ball of radius ``lam``.

    The attack is :func:`input_hessian.pgd.pgd`; the perturbation is held constant (Danskin).

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
        check_attack(self.norm, self.steps)

    @differentiating
    def __call__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator | None = None,
    ) -> Objective:
        images, labels = usable(images), usable(labels)
        with torch.no_grad():
            logits = checked_logits(model, images, labels)
            loss = F.cross_entropy(logits, labels, reduction="none")
        moved = pgd(
            lambda moved: derivatives(model, moved, labels).gradient,
            images,
            radius=self.lam,
            norm=self.norm,
            steps=self.steps,
            generator=generator,
        )
        penalty = F.cross_entropy(model(moved), labels, reduction="none") - loss
        return Objective(loss, penalty, logits)
