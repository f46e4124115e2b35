"""Hessian-vector products layer by layer, by Taylor propagation instead of double backpropagation.

Along ``x + a u + b v`` the input of every layer has a Taylor series ``h + a h_u + b h_v + a b
h_uv``, and so has the cotangent ``c = d ell / d output`` that the ordinary backward pass brings to
it.  The coefficients of one forward and one backward pass hold all that a Hessian penalty needs:

    g = c                                                    at the image,
    H v = c_v                                                at the image,
    d(u'H v)/dW = c_uv h' + c_u h_v' + c_v h_u' + c h_uv'    at a layer of weight ``W``.

A linear layer treats every coefficient alike; an elementwise function follows the chain rule.  The
second derivatives of the layers never pass through autograd, and no graph is kept.

Supports sequences of the layers in ``KNOWN``; to add one, name there its type and the function that
returns its :class:`Linear` or :class:`Elementwise` form, or nothing for options that this does not
cover.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.module import _has_any_global_hook

from input_hessian.hessian import (
    DTYPES,
    InputHessian,
    LossFunction,
    autocast_is_on,
    check_batch,
    check_logits,
    check_shape,
    differentiating,
    usable,
)


class UnsupportedLayerError(ValueError):
    """A layer's Taylor propagation is not known here."""


class Linear:
    """A linear layer with bias: it pushes tangents ``t`` forward and pulls cotangents ``c`` back.

    Arguments named ``*_u``, ``*_v`` and ``*_uv`` are Taylor coefficients; ``None`` is zero.
    """

    parameters: Sequence[Tensor] = ()
    ndim: int | None = None  # of the input, if others are not known here

    def __init__(self, module: nn.Module):
        self.module = module

    def value(self, h: Tensor, sampled: int) -> Tensor:
        self.input = h
        return self.module(h)

    def apply(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def transpose(self, c: Tensor) -> Tensor:
        raise NotImplementedError

    def gradients(self, pairs: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
        """Return the sum of ``c t'`` over the pairs ``(c, t)``, for every parameter."""
        return []

    def push(self, t_u: Tensor) -> Tensor:
        return self.apply(t_u)

    def push_uv(self, t_uv: Tensor | None, t_u: Tensor, t_v: Tensor) -> Tensor | None:
        return None if t_uv is None else self.apply(t_uv)

    def pull(self, c: Tensor) -> Tensor:
        return self.transpose(c)

    def curvature(self, c: Tensor) -> Tensor | None:
        """Return ``s''(h) c``, by which the layer bends the cotangent ``c`` along a tangent."""
        return None

    def pull_u(self, c_u: Tensor, curvature: Tensor | None, t_u: Tensor) -> Tensor:
        return self.transpose(c_u)

    def pull_uv(self, c_uv, *coefficients) -> Tensor:
        return self.transpose(c_uv)


class _Weighted(Linear):
    module: nn.Linear | nn.Conv2d

    def __init__(self, module: nn.Linear | nn.Conv2d):
        super().__init__(module)
        self.weight = module.weight.detach()
        self.parameters = [p for p in (module.weight, module.bias) if p is not None]

    def gradients(self, pairs):
        weight = self.weight_gradient(pairs)
        c = pairs[0][0]  # the bias is added to h alone
        bias = c.sum(0) if c.ndim == 2 else c.flatten(2).sum((0, 2))
        return [weight, bias][: len(self.parameters)]

    def weight_gradient(self, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
        raise NotImplementedError


class FullyConnected(_Weighted):
    """``W h + b``."""

    module: nn.Linear
    ndim = 2

    def apply(self, t):
        return t @ self.weight.mT

    def transpose(self, c):
        return c @ self.weight

    def weight_gradient(self, pairs):
        (c, t), *others = pairs
        result = c.mT @ t
        for c, t in others:
            result.addmm_(c.mT, t)
        return result


class FirstFullyConnected(FullyConnected):
    """``W h + b`` for images in coordinates ``a`` of the row space of ``W``.

    With ``W W' = L L'`` the rows of ``Q = L^-1 W`` are orthonormal.  The loss depends on the image
    through ``a = Q h`` alone and ``W h = L a``: gradient and Hessian-vector products are ``Q'``
    times those in ``a``, so all norms agree, while ``a`` is shorter than ``h``.  Tangents are given
    in ``a``; only the input itself is an image.

    ``W W'`` is raised by its rounding error, so that it can be factored where rows are dependent:
    as if the image had as many unseen pixels, each with a weight of ``sqrt(eps) ||W||_F``.
    """

    def __init__(self, module: nn.Linear):
        super().__init__(module)
        self.image_weight = self.weight
        gram = self.weight @ self.weight.mT
        finfo = torch.finfo(gram.dtype)
        gram.diagonal().add_(finfo.eps * gram.trace() + finfo.tiny)
        # without the check, which would wait for the device
        factor, failed = torch.linalg.cholesky_ex(gram)
        self.weight = factor.masked_fill(failed.bool(), torch.nan)

    def weight_gradient(self, pairs):
        (c, image), *others = pairs
        result = c.mT @ image
        if others:
            # c t' = c (Q' a)' = (c a') L^-1 W
            coordinates = super().weight_gradient(others)
            rows = torch.linalg.solve_triangular(self.weight, coordinates, upper=False, left=False)
            result.addmm_(rows, self.image_weight)
        return result


class Convolution(_Weighted):
    """A strided, grouped convolution; its transpose is one small one per phase of the stride.

    The usual input gradient of a strided convolution is several times slower than this on a CPU.
    """

    ndim = 4

    def __init__(self, module: nn.Conv2d):
        super().__init__(module)
        self.stride, self.padding = module.stride[0], int(module.padding[0])
        self.groups = module.groups
        outputs, inputs, size, _ = self.weight.shape  # inputs of one group
        s = self.stride
        before = -self.padding % s  # taps in front, so that the padding is a multiple of the stride
        self.taps = -(-(size + before) // s)
        after = self.taps * s - size - before
        phases = F.pad(self.weight, (before, after) * 2)
        phases = phases.view(self.groups, -1, inputs, self.taps, s, self.taps, s).flip(3, 5)
        phases = phases.permute(0, 2, 4, 6, 1, 3, 5)
        self.phases = phases.reshape(-1, outputs // self.groups, self.taps, self.taps)
        self.before = self.taps - 1 - (self.padding + before) // s

    def apply(self, t):
        return F.conv2d(t, self.weight, None, self.stride, self.padding, groups=self.groups)

    def transpose(self, c):
        height, width = self.input.shape[2:]
        after = [
            -(-size // self.stride) - c.shape[dim] - self.before + self.taps - 1
            for dim, size in ((2, height), (3, width))
        ]
        if after == [self.before] * 2 and self.before >= 0:
            phases = F.conv2d(c, self.phases, padding=self.before, groups=self.groups)
        else:
            padded = F.pad(c, (self.before, after[1], self.before, after[0]))
            phases = F.conv2d(padded, self.phases, groups=self.groups)
        return self.interleave(phases, height, width)

    def interleave(self, phases, height, width):
        """Do what ``F.pixel_shuffle`` does, in a third of the time, and crop."""
        s = self.stride
        phases = phases.unflatten(1, (-1, s, s))
        result = phases.new_empty(len(phases), phases.shape[1], height, width)
        for i, j in itertools.product(range(s), range(s)):
            target = result[:, :, i::s, j::s]
            target.copy_(phases[:, :, i, j, : target.shape[2], : target.shape[3]])
        return result

    def weight_gradient(self, pairs):
        # one by one: a batch three times as large takes longer than three batches
        gradients = [
            torch.ops.aten.convolution_backward(
                c, t, self.weight, None, [self.stride] * 2, [self.padding] * 2, [1, 1], False,
                [0, 0], self.groups, [False, True, False],
            )[1]
            for c, t in pairs
        ]  # fmt: skip
        return sum(gradients[1:], start=gradients[0])


class Flatten(Linear):
    """``[B, ...] -> [B, n]``."""

    def apply(self, t):
        return t.flatten(1)

    def transpose(self, c):
        return c.view(len(c), *self.input.shape[1:])


class Elementwise:
    """``s(a)``, given by ``derivatives(a) -> s'(a), s''(a), s'''(a)``; the last two as functions.

    ``backward(c, a, s(a))`` is ``s'(a) c`` in one kernel, for images whose derivatives are not kept.
    """

    parameters: Sequence[Tensor] = ()
    ndim: int | None = None

    def __init__(self, module: nn.Module, derivatives: Callable, backward: Callable):
        self.module, self.derivatives, self.backward = module, derivatives, backward

    def value(self, a, sampled):
        self.first, self.second, self.third = self.derivatives(a[:sampled])
        self.input, self.output = a, self.module(a)
        return self.output

    def push(self, t_u):
        return self.first * t_u

    def push_uv(self, t_uv, t_u, t_v):
        result = None if t_uv is None else self.first * t_uv
        if t_u is not None:
            curved = (self.second() * t_u).mul_(t_v)
            result = curved if result is None else result.add_(curved)
        return result

    def pull(self, c):
        return self.first * c

    def curvature(self, c):
        return self.second() * c

    def pull_u(self, c_u, curvature, t_u):
        return (curvature * t_u).addcmul_(self.first, c_u)

    def pull_uv(self, c_uv, c_u, c_v, c, curvature, t_uv, t_u, t_v):
        result = self.backward(c_uv, self.input, self.output)
        sample = result[: len(c)]
        if t_u is not None:
            sample.addcmul_((c_v * t_u).addcmul_(c_u, t_v), self.second())
            sample.addcmul_((self.third() * t_u).mul_(t_v), c)
        if t_uv is not None:
            sample.addcmul_(curvature, t_uv)
        return result


class Pooling(Linear):
    """Averages over windows."""

    ndim = 4

    def __init__(self, module: nn.Module, forward: Callable, backward: Callable):
        super().__init__(module)
        self.forward, self.backward = forward, backward

    def apply(self, t):
        return self.forward(t)

    def transpose(self, c):
        return self.backward(c, self.input[: len(c)])


def _sequence(module: nn.Sequential) -> list:
    return [layer for child in module for layer in layers(child)]


def _average_pooling(module: nn.AvgPool2d) -> list:
    sizes = module.kernel_size, module.stride or module.kernel_size, module.padding
    pairs = [(n, n) if isinstance(n, int) else n for n in sizes]
    others = module.ceil_mode, module.count_include_pad, module.divisor_override

    def forward(t):
        return torch.ops.aten.avg_pool2d(t, *pairs, *others)

    def backward(c, h):
        return torch.ops.aten.avg_pool2d_backward(c, h, *pairs, *others)

    return [Pooling(module, forward, backward)]


def _adaptive_average_pooling(module: nn.AdaptiveAvgPool2d) -> list:
    forward = partial(F.adaptive_avg_pool2d, output_size=module.output_size)
    return [Pooling(module, forward, torch.ops.aten._adaptive_avg_pool2d_backward)]


def _fully_connected(module: nn.Linear) -> list | None:
    return [FullyConnected(module)] if _has_parameters(module, 2) else None


def _convolution(module: nn.Conv2d) -> list | None:
    simple = module.dilation == (1, 1) and module.padding_mode == "zeros"
    if not simple or not _has_parameters(module, 4):
        return None
    pairs = module.stride, module.padding, module.weight.shape[2:]
    square = all(isinstance(pair, tuple) and pair[0] == pair[1] for pair in pairs)
    return [Convolution(module)] if square else None


def _has_parameters(module: nn.Module, ndim: int) -> bool:
    """Whether weight and bias are parameters of the usual shapes, and there are no others."""
    parameters = vars(module)["_parameters"]
    if parameters.keys() != {"weight", "bias"} or parameters["weight"] is None:
        return False
    weight, bias = parameters["weight"], parameters["bias"]
    return weight.ndim == ndim and (bias is None or bias.shape == weight.shape[:1])


def _flatten(module: nn.Flatten) -> list | None:
    return [Flatten(module)] if (module.start_dim, module.end_dim) == (1, -1) else None


def _softplus(module: nn.Softplus) -> list | None:
    beta = module.beta
    # Above the threshold PyTorch takes the identity; at 20, sigmoid differs from 1 by 2e-9.
    if not isinstance(beta, int | float) or not module.threshold >= 20:
        return None

    def derivatives(a):
        first = torch.sigmoid(beta * a)

        @cache
        def second():
            return torch.addcmul(first, first, first, value=-1).mul_(beta)

        def third():
            return torch.addcmul(second(), first, second(), value=-2).mul_(beta)

        return first, second, third

    def backward(c, a, _):
        return torch.ops.aten.softplus_backward(c, a, beta, module.threshold)

    return [Elementwise(module, derivatives, backward)]


def _tanh(module: nn.Tanh) -> list:
    def derivatives(a):
        tanh = torch.tanh(a)
        first = 1 - tanh.square()
        second = (first * tanh).mul_(-2)
        return first, lambda: second, lambda: first * (6 * tanh.square() - 2)

    return [Elementwise(module, derivatives, lambda c, _, s: torch.ops.aten.tanh_backward(c, s))]


def _silu(module: nn.SiLU) -> list | None:
    def derivatives(a):
        s = torch.sigmoid(a)
        slope = s * (1 - s)  # of s; its own is slope (1 - 2 s)

        @cache
        def second():
            return slope * (2 + a * (1 - 2 * s))

        def third():
            return slope * (3 * (1 - 2 * s) + a * (1 - 6 * slope))

        return torch.addcmul(s, a, slope), second, third

    def backward(c, a, _):
        return torch.ops.aten.silu_backward(c, a)

    return None if module.inplace else [Elementwise(module, derivatives, backward)]


def _gelu(module: nn.GELU) -> list | None:
    def derivatives(a):
        normal = torch.exp(-a.square() / 2) / math.sqrt(2 * math.pi)  # density of N(0, 1)
        first = torch.special.ndtr(a).addcmul_(a, normal)

        @cache
        def second():
            return normal * (2 - a.square())

        return first, second, lambda: normal * a * (a.square() - 4)

    def backward(c, a, _):
        return torch.ops.aten.gelu_backward(c, a)

    exact = module.approximate == "none"
    return [Elementwise(module, derivatives, backward)] if exact else None


def _relu(module: nn.ReLU) -> list | None:
    def derivatives(a):
        zero = torch.zeros_like(a)
        return (a > 0).to(a.dtype), lambda: zero, lambda: zero

    def backward(c, a, _):
        return torch.ops.aten.threshold_backward(c, a, 0)

    return None if module.inplace else [Elementwise(module, derivatives, backward)]


KNOWN: dict[type[nn.Module], Callable] = {
    nn.Sequential: _sequence,
    nn.Linear: _fully_connected,
    nn.Conv2d: _convolution,
    nn.Flatten: _flatten,
    nn.Softplus: _softplus,
    nn.Tanh: _tanh,
    nn.ReLU: _relu,
    nn.SiLU: _silu,
    nn.GELU: _gelu,
    nn.AvgPool2d: _average_pooling,
    nn.AdaptiveAvgPool2d: _adaptive_average_pooling,
}
# An instance's attribute of such a name changes what the module does (its forward, say).
_RESERVED = {kind: frozenset(dir(kind)) | {"weight", "bias"} for kind in KNOWN}


def layers(module: nn.Module) -> list:
    """Return the layers of a module, in order: what every fast path asks before it is taken.

    Raises:
        UnsupportedLayerError: for a layer whose Taylor propagation is not known.
    """
    name = type(module).__name__
    if type(module) not in KNOWN:
        raise UnsupportedLayerError(f"no Taylor propagation for {name}: use InputHessian")
    if not is_as_built(module):
        raise UnsupportedLayerError(
            f"no Taylor propagation for a {name} changed by hooks, attributes, special parameters "
            "or autocast: use InputHessian"
        )
    found = KNOWN[type(module)](module)
    if found is None:
        raise UnsupportedLayerError(f"no Taylor propagation for {module}: use InputHessian")
    return found


def is_as_built(module: nn.Module) -> bool:
    """Whether nothing but the options of a known type says what this module, of that type, does.

    PyTorch lets hooks and attributes of the instance change that.  Parametrizations and subclasses
    are other types.
    """
    state = vars(module)
    return (
        _RESERVED[type(module)].isdisjoint(state)
        and not state["_forward_hooks"]
        and not state["_forward_pre_hooks"]
        and not state["_backward_hooks"]
        and not state["_backward_pre_hooks"]
        and not _has_any_global_hook()
        and not autocast_is_on()
        and all(_is_plain(p) for p in state["_parameters"].values() if p is not None)
    )


def _is_plain(tensor: Tensor) -> bool:
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.dtype in DTYPES
        and (tensor.is_cpu or tensor.is_cuda)
        and tensor.layout is torch.strided
        and not tensor.is_inference()
    )


class LayerwiseHessian:
    """The same as :class:`input_hessian.hessian.InputHessian`, but faster, for sequential networks.

    ``loss``, ``gradient`` and ``matvec(..., create_graph=True)`` are differentiable in the
    parameters, once; ``logits`` is not.  After such a product, ``loss`` and ``gradient`` share its
    graph: the backward pass of all three costs no more than the product's.

    Args:
        model: maps images ``[B, *image]`` to logits ``[B, K]``.
        images: ``[B, *image]`` in pixel units.
        labels: ``[B]`` class indices.
        sampled: see :func:`derivatives`.
        row_space: give ``gradient``, ``matvec`` and ``pullback`` in coordinates ``[B, r]`` of the
            row space of the first layer, where all of them lie, instead of pixels: the norms are
            the same and cost less.  Done only where it pays: for a fully connected layer with far
            fewer outputs ``r`` than inputs, and enough images to repay the cost of the basis.

    Raises:
        UnsupportedLayerError: for a layer whose Taylor propagation is not known.
        ValueError: for bad images, labels or logits, as
            :class:`input_hessian.hessian.InputHessian`; where autograd, asked once for every
            network, finds other logits or another gradient.
    """

    @differentiating
    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        sampled: int | None = None,
        row_space: bool = False,
    ):
        self._passes = passes = _Passes(model, images, labels, sampled, row_space)
        _check_once(model, passes, usable(images), labels)
        self.logits = passes.logits
        self.loss, self.gradient = passes.differentiable(None, passes.loss, passes.gradient)
        self._cotangents = (len(self.gradient), passes.logits.shape[1])

    @differentiating
    def pullback(self, cotangents: Tensor) -> Tensor:
        """Return ``J'w``, the image gradient of ``w'z``, for logit cotangents ``w``, ``[B, K]``."""
        check_shape("cotangents", cotangents, self._cotangents)
        with torch.no_grad():
            return self._passes.pull(cotangents)[0]

    @differentiating
    def matvec(self, vector: Tensor, *, create_graph: bool = False) -> Tensor:
        """Return ``H v`` for every image, forward over reverse."""
        check_shape("vector", vector, self.gradient.shape)
        product, state = self._passes.product(vector)
        if create_graph:
            self.loss, self.gradient, product = self._passes.differentiable(
                state, self.loss.detach(), self.gradient.detach(), product
            )
        return product


def derivatives(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    sampled: int | None = None,
    row_space: bool = False,
    loss: LossFunction | None = None,
) -> LayerwiseHessian | InputHessian:
    """Return loss ``ell``, input gradient ``g`` and products ``v -> H v`` of every image of a batch.

    By the fast passes of :class:`LayerwiseHessian` where every layer is of a known type, not a
    subclass, and no hook, parametrization or attribute changes what it does; else by the
    double backpropagation of :class:`input_hessian.hessian.InputHessian`.  Both have ``logits``,
    ``loss``, ``gradient``, ``matvec`` and ``pullback``, and agree up to rounding.

    Args:
        model: maps images ``[B, *image]`` to logits ``[B, K]``, image by image.
        images: ``[B, *image]`` in pixel units, float32 or float64.
        labels: ``[B]`` class indices, int64.
        sampled: number of images, the first ones, to whose derivatives all of this is restricted;
            ``loss`` and ``logits`` stay those of the whole batch.  ``None`` means every image.
        row_space: let the fast passes leave the pixels where that is cheaper.  Norms stay the same;
            the vectors are then those of another basis.
        loss: another loss than the cross-entropy, ``loss(logits, labels) -> [B]``, image by image;
            by double backpropagation, as the fast passes know the cross-entropy alone.

    Raises:
        ValueError: as :class:`input_hessian.hessian.InputHessian`, for bad images, labels, logits,
            losses or layers.
    """
    if loss is None:
        try:
            return LayerwiseHessian(model, images, labels, sampled=sampled, row_space=row_space)
        except UnsupportedLayerError:
            pass
    return InputHessian(model, images, labels, sampled=sampled, loss=loss)


_CHECKED: WeakKeyDictionary[nn.Module, set] = WeakKeyDictionary()


def _check_once(model: nn.Module, passes: _Passes, images: Tensor, labels: Tensor) -> None:
    """Raise ValueError if autograd finds other logits or another ``J'w`` at the first two images.

    Once for every network, sequence of layers and shape of the images.  ``w`` is the unit vector of
    the label: unlike the loss's gradient, ``J'w`` keeps its digits where the softmax saturates.
    """
    kinds = [type(module) for module in (model, *(layer.module for layer in passes.layers))]
    key = (images.shape[1:], *((kind.__call__, kind.forward) for kind in kinds))
    checked = _CHECKED.setdefault(model, set())
    if key in checked or not len(images):
        return
    images, labels = images[:2].clone().requires_grad_(), labels[:2]
    logits, fast = model(images), _Passes(model, images, labels, None, False)
    w = F.one_hot(labels, fast.logits.shape[1]).to(images.dtype)
    # of a sum: with grad_outputs, PyTorch would first import sympy, for a second
    (gradient,) = torch.autograd.grad((logits * w).sum(), images)
    for name, right, found in (
        ("logits", logits.detach(), fast.logits),
        ("image gradients", gradient, fast.pull(w)[0]),
    ):
        error, size = (found - right).abs().max().item(), right.abs().max().item()
        if error > torch.finfo(images.dtype).eps ** 0.5 * (1 + 100 * size):
            raise ValueError(
                f"model: the {name} of its layers differ from autograd's by {error:.2g} of "
                f"{size:.2g}, so something changes them that is not known here: use InputHessian"
            )
        if not math.isfinite(error):
            return
    checked.add(key)


class _Passes:
    """The forward and backward passes through one network, for one batch.

    ``t[i]`` is a tangent at the input of layer i, ``c[i]`` a cotangent at its output.  What a pass
    returns first has left the network at the other end.  All are those of the sampled images, but
    for the values ``h`` and the cotangent ``c_uv``, which the loss of every image takes part in.
    """

    @torch.no_grad()
    def __init__(self, model, images, labels, sampled: int | None, row_space: bool):
        self.layers = layers(model)
        check_batch(images, labels)
        self.sampled = len(images) if sampled is None else sampled
        images = usable(images)
        if not self.layers or not _is_plain(images):
            raise UnsupportedLayerError(
                f"no Taylor propagation for {len(self.layers)} layers and images of type "
                f"{type(images).__name__} on {images.device}: use InputHessian"
            )
        if row_space:
            images = self.to_row_space(images)
        self.parameters = [p for layer in self.layers for p in layer.parameters]
        if any(p.dtype != images.dtype for p in self.parameters):
            raise UnsupportedLayerError(
                f"no Taylor propagation for parameters of another type than the images' "
                f"{images.dtype}: use InputHessian"
            )
        # below the lowest parameter, a cotangent matters to the image alone
        self.lowest = next(
            (i for i, layer in enumerate(self.layers) if layer.parameters), len(self.layers)
        )
        self.tensors = [images, *self.parameters]
        self.versions = [tensor._version for tensor in self.tensors]
        h = images
        for layer in self.layers:
            if layer.ndim not in (None, h.ndim):
                raise UnsupportedLayerError(
                    f"no Taylor propagation for {layer.module} on a batch of shape "
                    f"{tuple(h.shape)}: use InputHessian"
                )
            h = layer.value(h, self.sampled)
        check_logits(h, labels)
        self.logits = h
        self.loss = F.cross_entropy(h, labels, reduction="none")
        p = h.softmax(1)
        self.slope = p - F.one_hot(labels, h.shape[1])  # of the loss, in the logits
        self.probabilities = p[: self.sampled]
        self.gradient, self.c = self.pull(self.slope[: self.sampled])
        self.curvature = [layer.curvature(c) for layer, c in zip(self.layers, self.c, strict=True)]

    def to_row_space(self, images):
        flat = [layer for layer in self.layers if not isinstance(layer, Flatten)]
        first, pixels = (flat or self.layers)[0], images.shape[1:].numel()
        if images.ndim > 2 and not isinstance(self.layers[0], Flatten):
            return images  # rows, not images
        if not isinstance(first, FullyConnected) or first.weight.shape[1] != pixels:
            return images
        # Multiplications of a training step with one product, in the first layer: 6 B n r now,
        # 4 B r^2 + 2 n r^2 then, with B images (sampled ones), n pixels and r outputs.
        outputs = first.weight.shape[0]
        if 2 * outputs > min(pixels, 4 * self.sampled):
            return images
        self.layers = [FirstFullyConnected(first.module), *flat[1:]]
        return images.flatten(1)

    def push(self, t):
        kept = []
        for layer in self.layers:
            kept.append(t)
            t = layer.push(t)
        return t, kept

    def push_uv(self, t, t_u, t_v):
        kept = []
        for layer, u, v in zip(self.layers, t_u, t_v, strict=True):
            kept.append(t)
            t = layer.push_uv(t, u, v)
        return t, kept

    def pull(self, c):
        kept = []
        for layer in reversed(self.layers):
            kept.append(c)
            c = layer.pull(c)
        return c, kept[::-1]

    def pull_u(self, c_u, t_u, *, to_image=True):
        kept = [None] * len(self.layers)
        for i in reversed(range(len(self.layers))):
            kept[i] = c_u
            if i == self.lowest and not to_image:
                return None, kept
            c_u = self.layers[i].pull_u(c_u, self.curvature[i], t_u[i])
        return c_u, kept

    def softmax_hessian(self, z):
        """Return ``(diag p - p p') z``: the Hessian of the cross-entropy in the logits."""
        return self.probabilities * (z - (self.probabilities * z).sum(1, keepdim=True))

    @torch.no_grad()
    def product(self, v):
        """Return ``H v``, and what its derivative needs."""
        self.check_versions()
        z_v, t_v = self.push(v)
        product, c_v = self.pull_u(self.softmax_hessian(z_v), t_v)
        return product, (z_v, t_v, c_v)

    def check_versions(self):
        """Refuse, as autograd does, tensors changed in place between two passes."""
        if self.versions != [tensor._version for tensor in self.tensors]:
            raise RuntimeError(
                "images or parameters were changed in place after LayerwiseHessian had evaluated "
                "the model: build a new one for the new values"
            )

    def differentiable(self, state, *values):
        def gradients(*cotangents):
            return self.parameter_gradients(state, *cotangents)

        return _Differentiable.apply(gradients, len(values), *values, *self.parameters)

    def parameter_gradients(self, state, weights, w=None, u=None):
        """Differentiate ``weights . loss + w . gradient + u . (H v)`` in the parameters.

        All three are mixed derivatives of the loss along ``x + a u + b v + a b w``.
        """
        self.check_versions()
        p, nothing = self.probabilities, [None] * len(self.layers)
        t_u = t_v = c_u = c_v = nothing
        c_uv = torch.zeros_like(self.slope) if weights is None else self.slope * weights[:, None]
        sample = c_uv[: self.sampled]
        if u is not None:
            z_v, t_v, c_v = state
            z_u, t_u = self.push(u)
            p_u = self.softmax_hessian(z_u)
            _, c_u = self.pull_u(p_u, t_u, to_image=False)
            sample += p_u * (z_v - (p * z_v).sum(1, keepdim=True))
            sample -= p * (p_u * z_v).sum(1, keepdim=True)
        z_uv, t_uv = self.push_uv(w, t_u, t_v)
        if z_uv is not None:
            sample += self.softmax_hessian(z_uv)
        found: list[Tensor] = []
        for i in reversed(range(self.lowest, len(self.layers))):
            layer, c = self.layers[i], self.c[i]
            if layer.parameters:
                pairs = [(c_uv, layer.input), (c_u[i], t_v[i]), (c_v[i], t_u[i]), (c, t_uv[i])]
                found = layer.gradients([pair for pair in pairs if pair[1] is not None]) + found
            if i > self.lowest:
                c_uv = layer.pull_uv(
                    c_uv, c_u[i], c_v[i], c, self.curvature[i], t_uv[i], t_u[i], t_v[i]
                )
        return found


class _Differentiable(torch.autograd.Function):
    """Values whose vector-Jacobian product with respect to the parameters is a given function."""

    @staticmethod
    def forward(ctx, gradients, count, *values_and_parameters):
        ctx.gradients, ctx.count = gradients, count
        ctx.set_materialize_grads(False)
        return tuple(value.view_as(value) for value in values_and_parameters[:count])

    @staticmethod
    @once_differentiable
    def backward(ctx, *cotangents):
        return None, None, *[None] * ctx.count, *ctx.gradients(*cotangents)
