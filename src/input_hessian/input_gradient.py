"""Input gradients of a trained network at less than half their usual cost on a CPU.

An attack takes thousands of gradients with respect to the image.  On a CPU most of their cost is
PyTorch's input gradient of strided convolutions; :class:`input_hessian.layerwise.Convolution`
computes the same map as a few small convolutions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from input_hessian.layerwise import Convolution, UnsupportedLayerError, layers


def with_cheap_input_gradient(model: nn.Module) -> nn.Module:
    """Return the same function with a cheaper gradient in the image, and none in the parameters.

    Logits are the same to the bit, gradients up to rounding.  Networks that are not a sequence of
    layers or not on a CPU, and convolutions that :mod:`input_hessian.layerwise` does not know,
    stay as they are.

    Args:
        model: maps images ``[B, *image]`` to logits ``[B, K]``; its parameters need no gradient.
    """
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    if not isinstance(model, nn.Sequential) or not on_cpu:
        return model
    cheap = nn.Sequential(*(_cheap(module) for module in model))
    return cheap.train(model.training)


def _cheap(module: nn.Module) -> nn.Module:
    if not isinstance(module, nn.Conv2d):
        return module
    try:
        (layer,) = layers(module)
    except UnsupportedLayerError:
        return module
    return _FrozenConvolution(layer)


class _FrozenConvolution(nn.Module):
    def __init__(self, layer: Convolution):
        super().__init__()
        self.layer = layer

    def forward(self, h: Tensor) -> Tensor:
        return _InputGradient.apply(h, self.layer)


class _InputGradient(torch.autograd.Function):
    """``W * h + b``, whose derivative is taken in ``h`` alone, once."""

    @staticmethod
    def forward(ctx, h, layer):
        ctx.layer = layer
        return layer.value(h, len(h))

    @staticmethod
    @once_differentiable
    def backward(ctx, c):
        return ctx.layer.transpose(c), None
