"""Regularizers: what is added to the cross-entropy of each training image.

A regularizer turns a batch into ``(loss, penalty)``, both ``[B]``; training minimises the mean of
their sum.  To add one, write a class with that ``__call__`` and register it under its name, and
list the name in ``workflow/schemas/config.schema.yaml``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from input_hessian.curvature import InputHessian, operator_norm, vector_norm
from input_hessian.errors import UserError
from input_hessian.taylor import LayerwiseHessian, UnsupportedLayerError

Model = Callable[[Tensor], Tensor]


class Objective(NamedTuple):
    """Per-image terms of the training objective; the objective is ``(loss + penalty).mean()``.

    Attributes:
        loss: cross-entropy, ``[B]``, in nats.
        penalty: weighted penalty, ``[B]``, in nats.
        logits: ``[B, K]``, so that accuracy costs no second evaluation.
    """

    loss: Tensor
    penalty: Tensor
    logits: Tensor


class Regularizer(Protocol):
    """What every regularizer offers."""

    def __call__(
        self, model: Model, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Objective:
        """Return the objective of a batch: images ``[B, *image]`` in [0, 1], labels ``[B]``."""
        ...


REGULARIZERS: dict[str, type[Regularizer]] = {}


def register(name: str) -> Callable[[type], type]:
    """Make a regularizer available under ``name``."""

    def add(cls: type) -> type:
        REGULARIZERS[name] = cls
        return cls

    return add


def build(penalty: str, **options: Any) -> Regularizer:
    """Return the regularizer registered as ``penalty``.

    Example: ``build("gradient", lam=1.0, squared=False)``.

    Raises:
        UserError: if no regularizer has that name, or the options do not fit it.
    """
    if penalty not in REGULARIZERS:
        raise UserError(f"penalty: expected one of {', '.join(REGULARIZERS)}, got {penalty!r}")
    try:
        return REGULARIZERS[penalty](**options)
    except TypeError as error:
        raise UserError(f"penalty {penalty!r} with options {options}: {error}") from None


@register("none")
@dataclass(frozen=True)
class Unregularized:
    """``ell``: plain training, the baseline.  ``lam`` must be 0."""

    lam: float = 0.0

    def __post_init__(self):
        if self.lam != 0:
            raise UserError(f"lam: expected 0 for plain training, got {self.lam}")

    def __call__(self, model, images, labels, generator):
        logits = model(images)
        loss = F.cross_entropy(logits, labels, reduction="none")
        return Objective(loss, torch.zeros_like(loss), logits)


@register("gradient")
@dataclass(frozen=True)
class InputGradient:
    """``ell + lam ||g||_2`` (or ``lam ||g||_2^2``): double backpropagation.

    Source: Drucker & LeCun, *Improving generalization performance using double backpropagation*,
    IEEE Transactions on Neural Networks 3(6), 1992 (there squared).

    Args:
        lam: weight, in pixel units (squared: squared pixel units per nat).
        squared: penalise the squared norm.
    """

    lam: float
    squared: bool

    def __call__(self, model, images, labels, generator):
        hessian = _derivatives(model, images, labels)
        norm = vector_norm(hessian.gradient)
        return Objective(hessian.loss, self.lam * _power(norm, self.squared), hessian.logits)


@register("hessian")
@dataclass(frozen=True)
class InputHessianNorm:
    """``ell + lam ||H||`` (or ``lam ||H||^2``), the penalty of arXiv 2009.06571.

    Args:
        lam: weight, in squared pixel units (squared: fourth powers of pixel units per nat).
        squared: penalise the squared norm.
        estimator: keywords of :func:`input_hessian.curvature.operator_norm`.
    """

    lam: float
    squared: bool
    estimator: dict[str, Any] = field(default_factory=dict)

    def __call__(self, model, images, labels, generator):
        hessian = _derivatives(model, images, labels, row_space=_may_leave_pixels(self.estimator))
        norm = _training_norm(hessian, self.estimator, generator)
        return Objective(hessian.loss, self.lam * _power(norm, self.squared), hessian.logits)


@register("taylor")
@dataclass(frozen=True)
class TaylorBound:
    """``ell + lam ||g||_2 + lam^2/2 ||H||``: the second-order bound on the loss under an l2 attack.

    A perturbation of l2 length ``lam`` raises the loss's quadratic model by at most the two penalty
    terms, so ``lam`` is the attack's epsilon, in pixel units.

    Args:
        lam: radius of the attack, in pixel units.
        estimator: keywords of :func:`input_hessian.curvature.operator_norm`.
    """

    lam: float
    estimator: dict[str, Any] = field(default_factory=dict)

    def __call__(self, model, images, labels, generator):
        hessian = _derivatives(model, images, labels, row_space=_may_leave_pixels(self.estimator))
        # In this order: after the product, the gradient shares its backward pass.
        second = self.lam**2 / 2 * _training_norm(hessian, self.estimator, generator)
        first = self.lam * vector_norm(hessian.gradient)
        return Objective(hessian.loss, first + second, hessian.logits)


def _derivatives(
    model: Model, images: Tensor, labels: Tensor, *, row_space: bool = False
) -> LayerwiseHessian | InputHessian:
    """Return the fast passes where every layer is known to them, else double backpropagation.

    With ``row_space`` only norms may be read off: the vectors need not be in pixels.
    """
    try:
        return LayerwiseHessian(model, images, labels, row_space=row_space)
    except UnsupportedLayerError:
        return InputHessian(model, images, labels)


def _may_leave_pixels(estimator: dict[str, Any]) -> bool:
    """A random start is drawn in pixels, as published; other starts lie in the row space."""
    return estimator.get("start") != "random"


def _training_norm(
    hessian: LayerwiseHessian | InputHessian, estimator: dict[str, Any], generator: torch.Generator
) -> Tensor:
    return operator_norm(hessian, create_graph=True, generator=generator, **estimator).norm


def _power(norm: Tensor, squared: bool) -> Tensor:
    return norm.square() if squared else norm
