"""The Frobenius norm of the logits' input Jacobian, by random projections."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from input_hessian.hessian import checked_logits, losses, usable
from input_hessian.penalties import Objective, SampledPenalty
from input_hessian.vectors import random_unit_vectors, vector_norm


@dataclass(frozen=True)
class JacobianPenalty(SampledPenalty):
    """``ell + lam/2 ||J||_F^2``, with ``J = d logits / d image``, ``K x d``.

    Estimated without bias by random projections, as ``||J||_F^2 = K E ||J'u||_2^2`` for ``u``
    uniform on the unit sphere of the logits; every image draws its own.
    Source: Hoffman, Roberts & Yaida, *Robust learning with Jacobian regularization*, 2019, arXiv
    1908.02729 (there one projection).

    Args:
        lam: penalty strength, in squared pixel units per nat (logits are in nats).
        n_proj: projections per image.

    Raises:
        ValueError: for fewer than one projection.
    """

    lam: float
    n_proj: int = 1

    def __post_init__(self):
        super().__post_init__()
        if self.n_proj < 1:
            raise ValueError(f"n_proj: expected at least 1 projection, got {self.n_proj}")

    def objective(self, model, images, labels, sampled, generator):
        images, labels = usable(images), usable(labels)
        projected = images[:sampled].requires_grad_()
        logits = checked_logits(model, projected, labels[:sampled])
        squares = torch.zeros_like(logits[:, 0])
        for _ in range(self.n_proj):
            (pulled,) = torch.autograd.grad(
                logits, projected, random_unit_vectors(logits, generator), create_graph=True
            )
            squares = squares + vector_norm(pulled).square()
        penalty = self.lam / 2 * logits.shape[1] / self.n_proj * squares
        if sampled < len(images):
            logits = torch.cat([logits, checked_logits(model, images[sampled:], labels[sampled:])])
        return Objective(losses(logits, labels, self.loss), penalty, logits)
