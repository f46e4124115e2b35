"""A residual network with GroupNorm, whose statistics are those of one image."""

import math
from collections.abc import Callable
from typing import Literal

from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from input_hessian.experiment.errors import UserError
from input_hessian.experiment.models import activation as layer


class Block(nn.Module):
    """``shortcut(x) + conv(act(norm(conv(act(norm(x))))))``, 3x3 convolutions, the first strided.

    Source: He, Zhang, Ren & Sun, *Identity mappings in deep residual networks*, ECCV 2016; GroupNorm:
    Wu & He, ECCV 2018.  The shortcut is 1x1 where the shape changes, else the identity.
    """

    def __init__(
        self, before: int, channels: int, stride: int, groups: int, act: Callable[[], nn.Module]
    ):
        super().__init__()
        self.residual = nn.Sequential(
            nn.GroupNorm(groups, before),
            act(),
            nn.Conv2d(before, channels, 3, stride, padding=1, bias=False),
            nn.GroupNorm(groups, channels),
            act(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        )
        same = stride == 1 and before == channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(before, channels, 1, stride)

    def forward(self, features: Tensor) -> Tensor:
        return self.shortcut(features) + self.residual(features)


def build(
    image_shape: tuple[int, int, int],
    classes: int,
    *,
    width: PositiveInt = 16,
    depth: PositiveInt = 2,
    groups: PositiveInt = 8,
    activation: Literal["softplus", "relu"] = "softplus",
    beta: PositiveFloat = 10.0,
) -> nn.Sequential:
    """Conv ``width`` - three stages of ``depth`` blocks, the later two strided - fully connected.

    Args:
        image_shape: ``(channels, height, width)`` in pixels.
        classes: number of logits.
        width: channels of the first stage; each later one has twice as many as the one before.
        depth: blocks of a stage.
        groups: of channels that GroupNorm normalises together; a divisor of ``width``.
        activation: see :func:`input_hessian.experiment.models.activation`.
        beta: likewise.

    Raises:
        UserError: if ``groups`` does not divide ``width``.
    """
    if width % groups:
        raise UserError(f"groups: expected a divisor of the width, {width}, got {groups}")
    act = layer(activation, beta)
    channels, height, breadth = image_shape
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1)]
    before = width
    for stage in range(3):
        for block in range(depth):
            stride = 2 if stage and not block else 1
            layers.append(Block(before, width * 2**stage, stride, groups, act))
            before = width * 2**stage
    # Each of the two strides halves the side, rounded up.
    pixels = math.ceil(height / 4) * math.ceil(breadth / 4)
    head = [nn.GroupNorm(groups, before), act(), nn.Flatten(), nn.Linear(before * pixels, classes)]
    return nn.Sequential(*layers, *head)
