"""Predictions of a trained network."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from input_hessian.experiment.errors import UserError
from input_hessian.hessian import evaluated


@torch.no_grad()
def predict(model: nn.Module, images: Tensor, batch_size: int = 2000) -> Tensor:
    """Return the logits ``[N, K]`` of images ``[N, *image]``, in evaluation mode, on the CPU.

    Raises:
        UserError: if the network changes its images in place, so that whoever evaluates it next
            would get other ones, or if its output is no tensor.
    """
    model.eval()
    device = device_of(model)
    logits = []
    for part in images.split(batch_size):
        batch = part.to(device, copy=True)
        version = None if batch.is_inference() else batch._version
        try:
            logits.append(evaluated(model, batch).cpu())
        except ValueError as error:
            raise UserError(error) from None
        if version is not None and batch._version != version:
            raise UserError(
                "model: expected the images to be left as they are, but they were changed in place; "
                "look for inplace=True and for methods like sub_ and div_ in its first layer"
            )
    return torch.cat(logits)


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
    if not any(tensor.requires_grad or tensor.is_inference() for tensor in tensors):
        return model
    # What hooks compute before every evaluation (pruning, the older weight_norm) has a graph, which
    # cannot be copied and is not needed.
    computed = (v for m in model.modules() for v in vars(m).values() if isinstance(v, Tensor))
    with torch.no_grad():  # TorchScript's copies have a graph otherwise
        copied = copy.deepcopy(model, {id(tensor): tensor.detach() for tensor in computed})
    for parameter in copied.parameters():  # the method of the module does not work for TorchScript
        parameter.requires_grad_(False)
    return copied


@contextlib.contextmanager
def mode_kept(model: nn.Module) -> Iterator[None]:
    """Put every module back into training or evaluation mode at the end, as it was."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


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
