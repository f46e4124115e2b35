"""Penalties: what is added to the loss of each training image, one per file.

A penalty turns a batch into ``(loss, penalty)``, both ``[B]``; training minimises the mean of their
sum.  To add one, write a file with one class that derives from :class:`Penalty`, here or anywhere
else, or from :class:`SampledPenalty` if each image has a penalty of its own.  Its fields are its
options, and the file's name (or path) is its name in a configuration.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from input_hessian.hessian import LossFunction, differentiating


class Objective(NamedTuple):
    """Per-image terms of the training objective; the objective is ``(loss + penalty).mean()``.

    Attributes:
        loss: cross-entropy (or the penalty's own ``loss``), ``[B]``, in nats.
        penalty: the penalty times its strength ``lam``, ``[B]``, in nats.
        logits: ``[B, K]``, so that accuracy costs no second evaluation.
        gradient_norm: ``||g||_2``, ``[B]``, in nats per pixel unit, from the penalty's own
            evaluation and differentiable like it; NaN for an image that was not drawn for the
            penalty, None where the penalty does not know it.
        hessian_norm: likewise ``||H||`` as estimated, in nats per squared pixel unit.
    """

    loss: Tensor
    penalty: Tensor
    logits: Tensor
    gradient_norm: Tensor | None = None
    hessian_norm: Tensor | None = None


@dataclass(frozen=True)
class Penalty(ABC):
    """Base class of the penalties, and what each of them offers.

    Args:
        lam: penalty strength; its unit is the penalty's own.

    Raises:
        ValueError: for a strength that is negative or not finite.
    """

    # Unknown options are refused where a configuration is read; pydantic looks this up by name.
    __pydantic_config__: ClassVar = {"extra": "forbid"}

    lam: float

    def __post_init__(self):
        if not 0 <= self.lam < float("inf"):
            raise ValueError(f"lam: expected a finite number, at least 0, got {self.lam}")

    @abstractmethod
    def __call__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator | None = None,
    ) -> Objective:
        """Return the objective of a batch.

        Args:
            model: maps images to logits ``[B, K]``, image by image.
            images: ``[B, *image]`` in [0, 1].
            labels: ``[B]``, int64.
            generator: source of whatever the penalty draws at random, on the images' device; by
                default PyTorch's own.
        """


@dataclass(frozen=True)
class SampledPenalty(Penalty):
    """A penalty that each image has on its own, so that a random sample estimates a batch's mean.

    With ``m = fraction * B`` of a batch's ``B`` images drawn without replacement, the penalty of a
    drawn image counts ``B / m`` times and that of the others is zero: the expectation of their mean
    is the mean of all penalties, and so for its parameter gradient.  Every image keeps its loss.

    Args:
        lam: penalty strength; its unit is the penalty's own.
        fraction: share of each batch's images whose penalty is computed, at least one image.
        loss: another loss than the cross-entropy, ``loss(logits, labels) -> [B]``, image by image;
            see :func:`input_hessian.layerwise.derivatives`.

    Raises:
        ValueError: for a fraction outside (0, 1], or a loss that cannot be called.
    """

    fraction: float = field(default=1.0, kw_only=True)
    loss: LossFunction | None = field(default=None, kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.fraction <= 1:
            raise ValueError(f"fraction: expected above 0, at most 1, got {self.fraction}")
        if self.loss is not None and not callable(self.loss):
            raise ValueError(f"loss: expected a function of logits and labels, got {self.loss!r}")

    @abstractmethod
    def objective(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        sampled: int,
        generator: torch.Generator | None,
    ) -> Objective:
        """Return loss and logits of all images, and the penalty of the first ``sampled`` ones.

        Arguments otherwise as in a call; ``penalty`` is ``[sampled]``, and so are the norms.
        """

    @differentiating
    def __call__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator | None = None,
    ) -> Objective:
        batch = len(images)
        sampled = min(max(1, round(self.fraction * batch)), batch)
        if sampled == batch:
            return self.objective(model, images, labels, batch, generator)
        order = torch.randperm(batch, generator=generator, device=images.device)
        mixed = images.index_select(0, order)
        found = self.objective(model, mixed, labels[order], sampled, generator)
        back = order.argsort()

        def spread(values: Tensor, others: float) -> Tensor:
            return F.pad(values, (0, batch - sampled), value=others)[back]

        norms = (found.gradient_norm, found.hessian_norm)
        return Objective(
            found.loss[back],
            spread(found.penalty * (batch / sampled), 0.0),
            found.logits[back],
            *(None if norm is None else spread(norm, math.nan) for norm in norms),
        )
