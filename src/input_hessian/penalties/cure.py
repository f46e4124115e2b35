"""CURE: the change of the input gradient along its own sign."""

from __future__ import annotations

from dataclasses import dataclass

from input_hessian.layerwise import derivatives
from input_hessian.penalties import Objective, SampledPenalty
from input_hessian.vectors import normalize, vector_norm


@dataclass(frozen=True)
class CurePenalty(SampledPenalty):
    """``ell + lam ||g(x + h z) - g(x)||_2^2`` with ``z = sign(g) / ||sign(g)||_2``: CURE.

    As in the paper, the difference is not divided by ``h``: for small ``h`` the penalty is ``lam
    h^2 ||H z||^2``.  ``z`` is held constant, and ``x + h z`` may leave [0, 1].
    Source: Moosavi-Dezfooli et al., *Robustness via curvature regularization, and vice versa*, CVPR
    2019.

    Args:
        lam: penalty strength, in squared pixel units per nat.
        step: ``h``, the l2 length of the step, in pixel units.

    Raises:
        ValueError: for a step that is not positive and finite.
    """

    lam: float
    step: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.step < float("inf"):
            raise ValueError(f"step: expected a positive, finite length, got {self.step}")

    def objective(self, model, images, labels, sampled, generator):
        here = derivatives(model, images, labels, sampled=sampled, loss=self.loss)
        direction = normalize(here.gradient.sign())
        moved = images[:sampled] + self.step * direction
        there = derivatives(model, moved, labels[:sampled], loss=self.loss)
        change = vector_norm(there.gradient - here.gradient)
        return Objective(here.loss, self.lam * change.square(), here.logits)
