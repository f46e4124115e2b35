"""Gradient and Hessian norm together: the second-order bound on the loss under attack."""

from __future__ import annotations

from dataclasses import dataclass, field

from input_hessian.estimators import Estimator
from input_hessian.layerwise import derivatives
from input_hessian.penalties import Objective, SampledPenalty
from input_hessian.vectors import vector_norm


@dataclass(frozen=True)
class TaylorPenalty(SampledPenalty):
    """``ell + lam ||g||_2 + lam^2/2 ||H||``: the second-order bound on the loss under an l2 attack.

    A perturbation of l2 length ``lam`` raises the loss's quadratic model by at most the two penalty
    terms, so ``lam`` is the attack's epsilon, in pixel units.

    Args:
        lam: radius of the attack, in pixel units.
        estimator: how the Hessian's norm is estimated.

    Raises:
        ValueError: for another estimator.
    """

    lam: float
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
        # In this order: after the product, the gradient shares its backward pass.
        norm = self.estimator.differentiable_norm(hessian, generator)
        slope = vector_norm(hessian.gradient)
        penalty = self.lam * slope + self.lam**2 / 2 * norm
        return Objective(hessian.loss, penalty, hessian.logits, slope, norm)
