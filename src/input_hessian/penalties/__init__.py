"""Penalties: what is added to the cross-entropy of each training image, one per file.

A penalty turns a batch into ``(loss, penalty)``, both ``[B]``; training minimises the mean of their
sum.  To add one, write a file with one class that derives from :class:`Penalty`, here or anywhere
else.  Its fields are its options, and the file's name (or path) is its name in a configuration.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn


class Objective(NamedTuple):
    """Per-image terms of the training objective; the objective is ``(loss + penalty).mean()``.

    Attributes:
        loss: cross-entropy, ``[B]``, in nats.
        penalty: the penalty times its strength ``lam``, ``[B]``, in nats.
        logits: ``[B, K]``, so that accuracy costs no second evaluation.
    """

    loss: Tensor
    penalty: Tensor
    logits: Tensor


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
        self, model: nn.Module, images: Tensor, labels: Tensor, generator: torch.Generator
    ) -> Objective:
        """Return the objective of a batch.

        Args:
            model: maps images to logits ``[B, K]``, image by image.
            images: ``[B, *image]`` in [0, 1].
            labels: ``[B]``, int64.
            generator: source of whatever the penalty draws at random.
        """
