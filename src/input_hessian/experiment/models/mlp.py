"""A fully connected network."""

import math

from torch import nn

from input_hessian.experiment.models import activation as layer


def build(image_shape, classes, *, width=256, activation="softplus", beta=10.0) -> nn.Sequential:
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
