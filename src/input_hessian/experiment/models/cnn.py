"""Two strided convolutions and two fully connected layers."""

import math
from typing import Literal

from pydantic import PositiveFloat, PositiveInt
from torch import nn

from input_hessian.experiment.models import activation as layer


def build(
    image_shape: tuple[int, int, int],
    classes: int,
    *,
    width: PositiveInt = 16,
    activation: Literal["softplus", "relu"] = "softplus",
    beta: PositiveFloat = 10.0,
) -> nn.Sequential:
    """Conv ``width`` - conv ``2 width`` (5x5, stride 2) - fully connected 100 - logits.

    Args:
        image_shape: ``(channels, height, width)`` in pixels.
        classes: number of logits.
        width: channels of the first convolution.
        activation: see :func:`input_hessian.experiment.models.activation`.
        beta: likewise.
    """
    act = layer(activation, beta)
    channels, height, breadth = image_shape
    # Each 5x5 convolution with stride 2 and padding 2 halves the side, rounded up.
    height, breadth = (math.ceil(math.ceil(side / 2) / 2) for side in (height, breadth))
    return nn.Sequential(
        nn.Conv2d(channels, width, 5, stride=2, padding=2),
        act(),
        nn.Conv2d(width, 2 * width, 5, stride=2, padding=2),
        act(),
        nn.Flatten(),
        nn.Linear(2 * width * height * breadth, 100),
        act(),
        nn.Linear(100, classes),
    )
