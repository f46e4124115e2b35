"""A fully connected network."""

import math
from typing import Literal

from pydantic import PositiveFloat, PositiveInt
from torch import nn

from input_hessian.experiment.models import activation as layer


def build(
    image_shape: tuple[int, int, int],
    classes: int,
    *,
    width: PositiveInt = 256,
    activation: Literal["softplus", "relu"] = "softplus",
    beta: PositiveFloat = 10.0,
) -> nn.Sequential:
    """Two hidden layers of ``width`` units.

    Args:
        image_shape: ``(channels, height, width)`` in pixels.
        classes: number of logits.
        width: units of a hidden layer.
        activation: see :func:`input_hessian.experiment.models.activation`.
        beta: likewise.
    """
    act = layer(activation, beta)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(image_shape), width),
        act(),
        nn.Linear(width, width),
        act(),
        nn.Linear(width, classes),
    )
