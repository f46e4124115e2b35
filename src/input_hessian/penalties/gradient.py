"""The norm of the loss's input gradient."""

from __future__ import annotations

from dataclasses import dataclass

from input_hessian.layerwise import derivatives
from input_hessian.penalties import Objective, SampledPenalty
from input_hessian.vectors import vector_norm


@dataclass(frozen=True)
class GradientPenalty(SampledPenalty):
    """``ell + lam ||g||_2`` (or ``lam ||g||_2^2``): double backpropagation.

    Source: Drucker & LeCun, *Improving generalization performance using double backpropagation*,
    IEEE Transactions on Neural Networks 3(6), 1992 (there squared).

    Args:
        lam: penalty strength, in pixel units (squared: squared pixel units per nat).
        squared: penalise the squared norm.
    """

    lam: float
    squared: bool = False

    def objective(self, model, images, labels, sampled, generator):
        hessian = derivatives(model, images, labels, sampled=sampled, loss=self.loss)
        norm = vector_norm(hessian.gradient)
        penalty = self.lam * (norm.square() if self.squared else norm)
        return Objective(hessian.loss, penalty, hessian.logits, gradient_norm=norm)
