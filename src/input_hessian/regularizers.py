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
from torch import Tensor, nn

from input_hessian.curvature import (
    InputHessian,
    normalize,
    operator_norm,
    reject_batch_coupling,
    vector_norm,
)
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
        hessian = derivatives(model, images, labels)
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
        hessian = derivatives(model, images, labels, row_space=_in_row_space(self.estimator))
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
        hessian = derivatives(model, images, labels, row_space=_in_row_space(self.estimator))
        # In this order: after the product, the gradient shares its backward pass.
        second = self.lam**2 / 2 * _training_norm(hessian, self.estimator, generator)
        first = self.lam * vector_norm(hessian.gradient)
        return Objective(hessian.loss, first + second, hessian.logits)


@register("cure")
@dataclass(frozen=True)
class CurvatureRegularization:
    """``ell + lam ||g(x + h z) - g(x)||_2^2`` with ``z = sign(g) / ||sign(g)||_2``: CURE.

    As in the paper, the difference is not divided by ``h``: for small ``h`` the penalty is ``lam
    h^2 ||H z||^2``.  ``z`` is held constant, and ``x + h z`` may leave [0, 1].
    Source: Moosavi-Dezfooli et al., *Robustness via curvature regularization, and vice versa*, CVPR
    2019.

    Args:
        lam: weight, in squared pixel units per nat.
        step: ``h``, the l2 length of the step, in pixel units.

    Raises:
        UserError: for a step that is not positive.
    """

    lam: float
    step: float

    def __post_init__(self):
        if not self.step > 0:
            raise UserError(f"step: expected a positive length, got {self.step}")

    def __call__(self, model, images, labels, generator):
        here = derivatives(model, images, labels)
        direction = normalize(here.gradient.sign())
        there = derivatives(model, images + self.step * direction, labels)
        change = vector_norm(there.gradient - here.gradient)
        return Objective(here.loss, self.lam * change.square(), here.logits)


@register("jacobian")
@dataclass(frozen=True)
class JacobianNorm:
    """``ell + lam/2 ||J||_F^2``, with ``J = d logits / d image``, ``K x d``.

    Estimated without bias by random projections, as ``||J||_F^2 = K E ||J'u||_2^2`` for ``u``
    uniform on the unit sphere of the logits; every image draws its own.
    Source: Hoffman, Roberts & Yaida, *Robust learning with Jacobian regularization*, 2019, arXiv
    1908.02729 (there one projection).

    Args:
        lam: weight, in squared pixel units per nat (logits are in nats).
        n_proj: projections per image.

    Raises:
        UserError: for less than one projection.
    """

    lam: float
    n_proj: int

    def __post_init__(self):
        if self.n_proj < 1:
            raise UserError(f"n_proj: expected at least 1 projection, got {self.n_proj}")

    def __call__(self, model, images, labels, generator):
        if isinstance(model, nn.Module):
            reject_batch_coupling(model)
        images = images.detach().requires_grad_()
        logits = model(images)
        loss = F.cross_entropy(logits, labels, reduction="none")
        squares = torch.zeros_like(loss)
        for _ in range(self.n_proj):
            (pulled,) = torch.autograd.grad(
                logits, images, _unit_vectors(logits, generator), create_graph=True
            )
            squares = squares + vector_norm(pulled).square()
        penalty = self.lam / 2 * logits.shape[1] / self.n_proj * squares
        return Objective(loss, penalty, logits)


@register("adversarial")
@dataclass(frozen=True)
class AdversarialTraining:
    """``ell(x + d)``, where PGD seeks the ``d`` of largest loss in a ball of radius ``lam``.

    PGD starts uniformly in the ball, takes steps of length ``2.5 lam / steps``, and returns to the
    ball and to [0, 1] after each.  The perturbation is held constant (Danskin).

    ``loss`` is that of the clean image, as for every regularizer, and ``penalty`` is what the
    attack adds.  Their sum is the adversarial loss, so ``loss`` needs no graph and has none: the
    penalty carries the whole parameter gradient.
    Source: Madry et al., *Towards deep learning models resistant to adversarial attacks*, ICLR
    2018.

    Args:
        lam: radius of the attack, in pixel units.
        norm: ``"linf"`` or ``"l2"``.
        steps: of PGD.

    Raises:
        UserError: for another norm, or less than one step.
    """

    lam: float
    norm: str
    steps: int

    def __post_init__(self):
        if self.norm not in ("linf", "l2"):
            raise UserError(f"norm: expected linf or l2, got {self.norm!r}")
        if self.steps < 1:
            raise UserError(f"steps: expected at least 1, got {self.steps}")

    def __call__(self, model, images, labels, generator):
        with torch.no_grad():
            logits = model(images)
            loss = F.cross_entropy(logits, labels, reduction="none")
        attacked = model(self._attack(model, images, labels, generator))
        penalty = F.cross_entropy(attacked, labels, reduction="none") - loss
        return Objective(loss, penalty, logits)

    def _attack(self, model, images, labels, generator) -> Tensor:
        moved = self._inside(images, images + self._start(images, generator))
        for _ in range(self.steps):
            gradient = derivatives(model, moved, labels).gradient.detach()
            direction = gradient.sign() if self.norm == "linf" else normalize(gradient)
            moved = self._inside(images, moved + 2.5 * self.lam / self.steps * direction)
        return moved

    def _start(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return a perturbation per image, uniform in the ball."""
        if self.norm == "linf":
            return self.lam * (2 * _uniform(images, images.shape, generator) - 1)
        # a ball of radius r holds r^d of the volume
        radius = _uniform(images, [len(images)], generator) ** (1 / images[0].numel())
        return torch.einsum("b,b...->b...", self.lam * radius, _unit_vectors(images, generator))

    def _inside(self, images: Tensor, moved: Tensor) -> Tensor:
        """Return the nearest points of the ball, clipped to [0, 1], which does not leave it."""
        perturbation = moved - images
        if self.norm == "linf":
            perturbation = perturbation.clamp(-self.lam, self.lam)
        else:
            perturbation = perturbation.renorm(2, 0, self.lam)
        return (images + perturbation).clamp(0, 1)


def _uniform(like: Tensor, shape, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, dtype=like.dtype, device=like.device, generator=generator)


def _unit_vectors(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return one vector per image, uniform on the unit sphere, of the shape of ``like``."""
    normal = torch.randn(like.shape, dtype=like.dtype, device=like.device, generator=generator)
    return normalize(normal)


def derivatives(
    model: Model, images: Tensor, labels: Tensor, *, row_space: bool = False
) -> LayerwiseHessian | InputHessian:
    """Return the fast passes where every layer is known to them, else double backpropagation.

    With ``row_space`` only norms may be read off: the vectors need not be in pixels.
    """
    try:
        return LayerwiseHessian(model, images, labels, row_space=row_space)
    except UnsupportedLayerError:
        return InputHessian(model, images, labels)


def _in_row_space(estimator: dict[str, Any]) -> bool:
    """Return whether the estimator finds in the row space the norm that it would find in pixels.

    Not from a random start, most of which lies outside the row space.
    """
    return estimator.get("start", "gradient") != "random"


def _training_norm(
    hessian: LayerwiseHessian | InputHessian, estimator: dict[str, Any], generator: torch.Generator
) -> Tensor:
    return operator_norm(hessian, create_graph=True, generator=generator, **estimator).norm


def _power(norm: Tensor, squared: bool) -> Tensor:
    return norm.square() if squared else norm
