"""Plain training, the baseline."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from input_hessian.hessian import evaluated
from input_hessian.penalties import Objective, Penalty


@dataclass(frozen=True)
class NoPenalty(Penalty):
    """``ell``: plain training, the baseline.  ``lam`` must be 0."""

    lam: float = 0.0

    def __post_init__(self):
        if self.lam != 0:
            raise ValueError(f"lam: expected 0 for plain training, got {self.lam}")

    def __call__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator | None = None,
    ) -> Objective:
        logits = evaluated(model, images)
        loss = F.cross_entropy(logits, labels, reduction="none")
        return Objective(loss, torch.zeros_like(loss), logits)
