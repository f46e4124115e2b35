"""Lengths and directions of one vector per image, safe where the entries are tiny."""

from __future__ import annotations

import torch
from torch import Tensor


def vector_norm(vectors: Tensor) -> Tensor:
    """Return ``||v||_2`` of every image, ``[B, *image] -> [B]``; its derivative at zero is zero.

    Scaled by the largest entry: the entries of a saturated softmax's Hessian (1e-30 in float32)
    would underflow when squared.
    """
    flat = vectors.flatten(1)
    scale = largest_entry(flat)
    return torch.linalg.vector_norm(flat / scale, dim=1) * scale.squeeze(1)


def normalize(vectors: Tensor) -> Tensor:
    """Return ``v / ||v||_2`` of every image, without a graph; zero becomes a constant vector."""
    flat = vectors.detach().flatten(1)
    flat = flat / largest_entry(flat)
    length = torch.linalg.vector_norm(flat, dim=1, keepdim=True)
    zero = length == 0
    scale = 1 / (length + zero * flat.shape[1] ** 0.5)
    return flat.add_(zero).mul_(scale).view_as(vectors)


def random_unit_vectors(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return one vector per image, uniform on the unit sphere, of the shape of ``like``."""
    normal = torch.randn(like.shape, dtype=like.dtype, device=like.device, generator=generator)
    return normalize(normal)


def largest_entry(flat: Tensor) -> Tensor:
    """Return the largest absolute entry of every row, ``[B, d] -> [B, 1]``, never zero."""
    return flat.detach().abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(flat.dtype).tiny)
