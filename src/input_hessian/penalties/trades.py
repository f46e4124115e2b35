"""TRADES: the loss of the clean image, and how far an attack moves the prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from input_hessian.hessian import checked_logits, differentiating, usable
from input_hessian.penalties import Objective, Penalty
from input_hessian.pgd import check_attack, pgd


@dataclass(frozen=True)
class Trades(Penalty):
    """``ell(x) + weight KL(p(x) || p(x + d))``, ``d`` of largest divergence within ``lam``.

    ``p`` is the softmax of the logits.  The attack is :func:`input_hessian.pgd.pgd` on the
    divergence; its perturbation is held constant, and both sides of the divergence are
    differentiated.
    Source: Zhang et al., *Theoretically principled trade-off between robustness and accuracy*,
    ICML 2019; ``weight`` is their ``1 / lambda``.

    Args:
        lam: radius of the attack, in pixel units.
        norm: ``"linf"`` or ``"l2"``.
        steps: number of PGD steps.
        weight: of the divergence.

    Raises:
        ValueError: for another norm, fewer than one step, or a weight that is not positive.
    """

    lam: float
    norm: Literal["linf", "l2"]
    steps: int = 7
    weight: float = 6.0

    def __post_init__(self):
        super().__post_init__()
        check_attack(self.norm, self.steps)
        if not 0 < self.weight < float("inf"):
            raise ValueError(f"weight: expected a finite number greater than 0, got {self.weight}")

    @differentiating
    def __call__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator | None = None,
    ) -> Objective:
        images, labels = usable(images), usable(labels)
        logits = checked_logits(model, images, labels)
        loss = F.cross_entropy(logits, labels, reduction="none")

        def gradient(moved: Tensor) -> Tensor:
            clean, moved = usable(logits), usable(moved).requires_grad_()
            return torch.autograd.grad(_divergence(clean, model(moved)).sum(), moved)[0]

        moved = pgd(
            gradient,
            images,
            radius=self.lam,
            norm=self.norm,
            steps=self.steps,
            generator=generator,
        )
        return Objective(loss, self.weight * _divergence(logits, model(moved)), logits)


def _divergence(logits: Tensor, moved: Tensor) -> Tensor:
    """Return ``KL(softmax(logits) || softmax(moved))`` of each image, ``[B]``, in nats."""
    log_p = logits.log_softmax(1)
    return (log_p.exp() * (log_p - moved.log_softmax(1))).sum(1)
