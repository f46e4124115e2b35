"""Input gradients of a trained network at less than half their usual cost on a CPU.

An attack takes thousands of gradients with respect to the image.  On a CPU most of their cost is
PyTorch's input gradient of strided convolutions; :class:`input_hessian.layerwise.Convolution`
computes the same map as a few small convolutions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from input_hessian.layerwise import Convolution, UnsupportedLayerError, is_as_built, layers


def with_cheap_input_gradient(model: nn.Module) -> nn.Module:
    """Return the same function with a cheaper gradient in the image.

    Logits are the same to the bit, gradients up to rounding.  Networks that are not a plain
    ``Sequential`` or not on a CPU, and convolutions that :mod:`input_hessian.layerwise` does not
    know or whose parameters need a gradient, stay as they are.

    Args:
        model: maps images ``[B, *image]`` to logits ``[B, K]``.
    """
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    if type(model) is not nn.Sequential or not is_as_built(model) or not on_cpu:
        return model
    cheap = nn.Sequential(*(_cheap(module) for module in model))
    cheap.training = model.training  # .train() would reach into the modules of the model
    return cheap


def _cheap(module: nn.Module) -> nn.Module:
    return module if _convolution(module) is None else _FrozenConvolution(module)


def _convolution(module: nn.Module) -> Convolution | None:
    """Return a known convolution without parameters to differentiate, else None."""
    try:
        found = layers(module) if type(module) is nn.Conv2d else []
    except UnsupportedLayerError:
        return None
    return next(
        (layer for layer in found if not any(p.requires_grad for p in layer.parameters)), None
    )


class _FrozenConvolution(nn.Module):
    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, h: Tensor) -> Tensor:
        layer = _convolution(self.module)  # asked again: it may have changed
        if layer is None or h.ndim != layer.ndim:
            return self.module(h)
        return _InputGradient.apply(h, layer)


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
