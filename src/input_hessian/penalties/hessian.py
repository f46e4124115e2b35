"""The operator norm of the loss's input Hessian."""

from __future__ import annotations

from dataclasses import dataclass, field

from input_hessian.estimators import Estimator
from input_hessian.layerwise import derivatives
from input_hessian.penalties import Objective, SampledPenalty
from input_hessian.vectors import vector_norm


@dataclass(frozen=True)
class HessianPenalty(SampledPenalty):
    """``ell + lam ||H||`` (or ``lam ||H||^2``), the penalty of arXiv 2009.06571.

    Args:
        lam: penalty strength, in squared pixel units (squared: pixel units to the fourth, per nat).
        squared: penalise the squared norm.
        estimator: how the norm is estimated.

    Raises:
        ValueError: for another estimator.
    """

    lam: float
    squared: bool = False
    estimator: Estimator = field(default_factory=Estimator)

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.estimator, Estimator):
            raise ValueError(f"estimator: expected an Estimator, got {self.estimator!r}")

    def objective(self, model, images, labels, sampled, generator):
        hessian = derivatives(
            model,
            images,
            labels,
            sampled=sampled,
            row_space=self.estimator.in_row_space,
            loss=self.loss,
        )
        norm = self.estimator.differentiable_norm(hessian, generator)
        penalty = self.lam * (norm.square() if self.squared else norm)
        # After the product, loss and gradient share its graph.
        gradient = vector_norm(hessian.gradient)
        return Objective(hessian.loss, penalty, hessian.logits, gradient, norm)
