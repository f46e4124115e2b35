"""Networks of the experiment, and how they are stored.

All map images in [0, 1] (never normalised outside the model) to logits, image by image: no
BatchNorm, no pooling.  The default activation is softplus, because a ReLU network's logits have no
curvature almost everywhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from input_hessian.experiment.errors import UserError
from input_hessian.experiment.files import write_atomically


class ModelFileError(UserError):
    """A model file is missing or cannot be read."""


ACTIVATIONS: dict[str, Callable[[float], nn.Module]] = {
    "softplus": lambda beta: nn.Softplus(beta),
    "relu": lambda beta: nn.ReLU(),
}


def cnn(image_shape: tuple[int, int, int], classes: int, width: int, activation: Callable):
    """Conv ``width`` - conv ``2 width`` (5x5, stride 2) - fully connected 100 - logits."""
    channels, height, breadth = image_shape
    for _ in range(
        2
    ):  # each 5x5 convolution with stride 2 and padding 2 halves the side, rounded up
        height, breadth = math.ceil(height / 2), math.ceil(breadth / 2)
    return nn.Sequential(
        nn.Conv2d(channels, width, 5, stride=2, padding=2),
        activation(),
        nn.Conv2d(width, 2 * width, 5, stride=2, padding=2),
        activation(),
        nn.Flatten(),
        nn.Linear(2 * width * height * breadth, 100),
        activation(),
        nn.Linear(100, classes),
    )


def mlp(image_shape: tuple[int, int, int], classes: int, width: int, activation: Callable):
    """Two hidden layers of ``width`` units."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(image_shape), width),
        activation(),
        nn.Linear(width, width),
        activation(),
        nn.Linear(width, classes),
    )


ARCHITECTURES = {"cnn": cnn, "mlp": mlp}


def build(
    *,
    architecture: str,
    width: int,
    activation: str,
    beta: float,
    image_shape: tuple[int, int, int],
    classes: int,
) -> nn.Sequential:
    """Return a freshly initialised network (PyTorch's default initialisation, global generator).

    Args:
        architecture: ``"cnn"`` or ``"mlp"``.
        width: channels of the first convolution, or units of a hidden layer.
        activation: ``"softplus"`` or ``"relu"``.
        beta: sharpness of softplus, ``log(1 + exp(beta a)) / beta``; its second derivative is at
            most ``beta / 4``.  Ignored by relu.
        image_shape: ``(channels, height, width)`` in pixels.
        classes: number of logits.

    Raises:
        UserError: for an unknown architecture or activation.
    """
    if architecture not in ARCHITECTURES:
        raise UserError(
            f"architecture: expected one of {', '.join(ARCHITECTURES)}, got {architecture!r}"
        )
    if activation not in ACTIVATIONS:
        raise UserError(f"activation: expected one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    return ARCHITECTURES[architecture](
        tuple(image_shape), classes, width, lambda: ACTIVATIONS[activation](beta)
    )


def save_model(
    model: nn.Module, settings: dict[str, Any], path: str | Path, status: str = "finished"
) -> None:
    """Write parameters, keywords of :func:`build` and training status to one safetensors file."""
    state = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    content = save(
        state, metadata={"model": json.dumps({**settings, "status": status}, sort_keys=True)}
    )
    write_atomically(path, content)


def load_model(path: str | Path, device: str | torch.device = "cpu") -> tuple[nn.Module, str]:
    """Return the network of a file that :func:`save_model` wrote, for evaluation, and its status.

    Raises:
        ModelFileError: if the file is missing, truncated or not one of ours.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            settings = json.loads(file.metadata()["model"])
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        status = settings.pop("status")
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise ModelFileError(
            f"{path}: expected a model written by this pipeline ({error}); delete it and run "
            "snakemake again"
        ) from error
    model = build(**settings)
    model.load_state_dict(state)
    return model.to(device).eval().requires_grad_(False), status
