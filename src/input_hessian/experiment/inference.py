"""Predictions of a trained network."""

from __future__ import annotations

import copy
import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.no_grad()
def predict(model: nn.Module, images: Tensor, batch_size: int = 2000) -> Tensor:
    """Return the logits ``[N, K]`` of images ``[N, *image]``, in evaluation mode, on the CPU."""
    model.eval()
    device = device_of(model)
    return torch.cat([model(part.to(device)).cpu() for part in images.split(batch_size)])


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Return which images are classified correctly, bool ``[N]``; none whose logits are not finite."""
    return logits.isfinite().all(1) & (logits.argmax(1) == labels)


def device_of(model: nn.Module) -> torch.device:
    """Return where a network is; one without parameters and buffers counts as on the CPU."""
    tensors = itertools.chain(model.parameters(), model.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


def frozen(model: nn.Module) -> nn.Module:
    """Return the network without gradients in its parameters: a copy, unless it has none already.

    An attack's backward pass would add to the parameters' ``grad``, and fail on parameters that were
    made under ``torch.inference_mode``.
    """
    tensors = [*model.parameters(), *model.buffers()]
    if any(tensor.requires_grad or tensor.is_inference() for tensor in tensors):
        return copy.deepcopy(model).requires_grad_(False)
    return model


def label_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``z_y - max_{k != y} z_k`` of every image, ``[B, K]`` and ``[B]`` to ``[B]``."""
    of_label = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return of_label.squeeze(1) - others.amax(1)


def evaluate(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return mean cross-entropy (nats) and accuracy over images ``[N, *image]``, labels ``[N]``."""
    logits = predict(model, images)
    loss = F.cross_entropy(logits, labels).item()
    return loss, correct(logits, labels).double().mean().item()
