"""Gradient, Hessian, margin and predicted radius of a network at every image, converged."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import torch
from torch import Tensor, nn

from input_hessian.estimators import largest_eigenvalue, operator_norm
from input_hessian.experiment.inference import label_margin
from input_hessian.layerwise import derivatives
from input_hessian.radius import predicted_radius
from input_hessian.vectors import vector_norm

# From a random start, so that no direction is favoured; the budget is spent only if need be.
CONVERGED = {"hvps": 80, "tolerance": 1e-3}
BATCH = 250  # Lanczos keeps two vectors a product and image: at most 250 MB for 784 pixels


def measure(model: nn.Module, images: Tensor, labels: Tensor) -> Iterator[pd.DataFrame]:
    """Yield one table per batch, one row per image."""
    generator = torch.Generator(images.device).manual_seed(0)
    for x, y in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        hessian = derivatives(model, x, y)
        logits = hessian.logits.detach()
        gradient_norm = vector_norm(hessian.gradient.detach())
        norm = operator_norm(
            hessian, method="lanczos", start="random", generator=generator, **CONVERGED
        )
        start = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
        largest = largest_eigenvalue(hessian.matvec, start, **CONVERGED)
        loss = hessian.loss.detach()
        columns = {
            "correct": logits.argmax(1) == y,
            "loss": loss,
            "margin": label_margin(logits, y),
            "logit_scale": logits.abs().amax(1),
            "gradient_norm": gradient_norm,
            "hessian_norm": norm.norm,
            "largest_eigenvalue": largest.value,
            "converged": norm.converged & largest.converged,
            "predicted_radius": predicted_radius(loss, gradient_norm, largest.value),
        }
        table = pd.DataFrame({name: value.cpu().numpy() for name, value in columns.items()})
        print(f"curvature converged: {table['converged'].sum()} of {len(x)} images", flush=True)
        yield table
