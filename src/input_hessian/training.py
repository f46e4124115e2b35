"""Training of one cell: deterministic under its seed, resumable after every epoch.

Adam with a one-cycle learning rate; the objective is ``(loss + penalty).mean()`` of the cell's
regularizer.  The last epoch's parameters are the result: no checkpoint is picked, so neither
validation nor test data influence them.
"""

from __future__ import annotations

import io
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from input_hessian.errors import UserError
from input_hessian.files import write_atomically
from input_hessian.regularizers import Objective, Regularizer


@dataclass(frozen=True)
class TrainingSettings:
    """How a cell is trained.

    Args:
        epochs: passes over the training images.
        batch_size: images per step; the last batch of an epoch may be smaller.
        learning_rate: peak of the one-cycle schedule (Smith & Topin 2018), for Adam.
        seed: of the initialisation, the order of the images and the random start vectors.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    seed: int


@dataclass
class TrainingResult:
    """What training returns.

    Attributes:
        status: ``"finished"``, or ``"diverged"`` if an epoch met a value that is not finite.
        curve: one row per finished epoch: ``epoch``, ``loss`` and ``penalty`` (means over the
            epoch's training images, in nats), ``accuracy``, ``validation_loss``,
            ``validation_accuracy``, ``seconds`` (training steps only) and ``steps``.
    """

    status: str
    curve: list[dict[str, float]]


def resolve_device(name: str) -> torch.device:
    """Return the device that ``auto``, ``cpu``, ``cuda`` or ``mps`` stands for.

    Raises:
        UserError: if the device is unknown or this machine does not have it.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(device for device, there in available.items() if there))
    if name not in available:
        raise UserError(f"device: expected auto, cpu, cuda or mps, got {name!r}")
    if not available[name]:
        raise UserError(f"device: {name} was asked for, but PyTorch finds none; use auto or cpu")
    return torch.device(name)


def configure(device: str, threads: int) -> torch.device:
    """Set up this process for repeatable float32 arithmetic and return the device to use.

    Raises:
        UserError: as :func:`resolve_device`.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only so
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.allow_tf32 = False  # ten bits of mantissa are too few for curvature
    return resolve_device(device)


def training_step(model, regularizer, optimizer, images, labels, generator) -> Objective:
    """Take one step down ``(loss + penalty).mean()``; return the objective before it."""
    objective = regularizer(model, images, labels, generator)
    optimizer.zero_grad(set_to_none=True)
    (objective.loss + objective.penalty).mean().backward()
    optimizer.step()
    return objective


def train(
    build_model: Callable[[], nn.Module],
    regularizer: Regularizer,
    training: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    settings: TrainingSettings,
    *,
    device: torch.device,
    checkpoint: Path | None = None,
    fingerprint: str = "",
) -> tuple[nn.Module, TrainingResult]:
    """Train one network.

    Args:
        build_model: returns a freshly initialised network.
        regularizer: per-image objective.
        training: images ``[N, *image]`` in [0, 1] and labels ``[N]``.
        validation: likewise; only measured, never trained on.
        settings: see :class:`TrainingSettings`.
        device: where to train; the data are moved there whole.
        checkpoint: file to write after every epoch and to resume from.
        fingerprint: identifies what the result depends on (settings, code, data); a checkpoint
            with another fingerprint is ignored.

    Returns:
        The network (after divergence: of the last epoch that stayed finite) and what was measured.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = build_model().to(device)
    images, labels = (tensor.to(device) for tensor in training)
    steps_per_epoch = -(-len(images) // settings.batch_size)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.epochs * steps_per_epoch
    )
    curve = _resume(checkpoint, fingerprint, model, optimizer, schedule)

    progress = tqdm(
        total=settings.epochs * steps_per_epoch,
        initial=len(curve) * steps_per_epoch,
        unit="step",
        disable=None,  # a log file gets one line per epoch instead of a bar
        leave=False,
    )
    with progress:
        for epoch in range(len(curve), settings.epochs):
            before = {name: value.clone() for name, value in model.state_dict().items()}
            row = _run_epoch(
                model, regularizer, images, labels, optimizer, schedule, settings, epoch, progress
            )
            if row is not None:
                row["validation_loss"], row["validation_accuracy"] = evaluate(model, *validation)
            if row is None or not math.isfinite(row["validation_loss"]):
                model.load_state_dict(before)
                progress.write(f"epoch {epoch + 1}/{settings.epochs}: diverged")
                return model, TrainingResult("diverged", curve)
            curve.append({"epoch": epoch + 1, **row})
            _save_checkpoint(checkpoint, fingerprint, model, optimizer, schedule, curve)
            progress.write(_describe(curve[-1], settings.epochs))
    return model, TrainingResult("finished", curve)


def _run_epoch(
    model, regularizer, images, labels, optimizer, schedule, settings, epoch, progress
) -> dict[str, float] | None:
    """Run one epoch; return its means, or None if the objective was not finite."""
    device = images.device
    # Seeded by (seed, epoch) and by nothing else, so that a resumed run draws the same numbers.
    order_seed, start_seed = (2 * (settings.seed * 100_003 + epoch) + part for part in (0, 1))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(order_seed))
    starts = torch.Generator(device).manual_seed(start_seed)
    totals = torch.zeros(3, device=device)
    began = time.perf_counter()
    batches = order.to(device).split(settings.batch_size)
    model.train()
    for batch in batches:
        objective = training_step(
            model, regularizer, optimizer, images[batch], labels[batch], starts
        )
        schedule.step()
        correct = objective.logits.argmax(1) == labels[batch]
        totals += torch.stack(
            [objective.loss.sum(), objective.penalty.sum(), correct.sum()]
        ).detach()
        progress.update()
    loss, penalty, accuracy = (totals / len(images)).tolist()
    seconds = time.perf_counter() - began  # .tolist() has waited for the device
    if not torch.isfinite(totals).all():
        return None
    return {
        "loss": loss,
        "penalty": penalty,
        "accuracy": accuracy,
        "seconds": seconds,
        "steps": len(batches),
    }


@torch.no_grad()
def predict(model: nn.Module, images: Tensor, batch_size: int = 2000) -> Tensor:
    """Return the logits ``[N, K]`` of images ``[N, *image]``, in evaluation mode, on the CPU."""
    model.eval()
    device = next(model.parameters()).device
    return torch.cat([model(part.to(device)).cpu() for part in images.split(batch_size)])


def label_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``z_y - max_{k != y} z_k`` of every image, ``[B, K]`` and ``[B]`` to ``[B]``."""
    of_label = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return of_label.squeeze(1) - others.amax(1)


def evaluate(model: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return mean cross-entropy (nats) and accuracy over images ``[N, *image]``, labels ``[N]``."""
    logits = predict(model, images)
    loss = F.cross_entropy(logits, labels).item()
    return loss, (logits.argmax(1) == labels).double().mean().item()


def _describe(row: dict[str, float], epochs: int) -> str:
    return (
        f"epoch {row['epoch']}/{epochs}: loss {row['loss']:.4f}, penalty {row['penalty']:.4f}, "
        f"accuracy {row['accuracy']:.4f}, validation accuracy {row['validation_accuracy']:.4f}, "
        f"{row['seconds']:.1f} s"
    )


def _save_checkpoint(path, fingerprint, model, optimizer, schedule, curve) -> None:
    if path is None:
        return
    state: dict[str, Any] = {
        "fingerprint": fingerprint,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "curve": curve,
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def _resume(path, fingerprint, model, optimizer, schedule) -> list[dict[str, float]]:
    """Load the checkpoint into model, optimizer and schedule; return the curve so far."""
    if path is None or not path.exists():
        return []
    try:
        # On the CPU first: load_state_dict moves what belongs on the device, and no more.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a damaged file
        print(f"{path}: unreadable ({error}); starting afresh", flush=True)
        return []
    if state["fingerprint"] != fingerprint:
        print(f"{path}: written by other settings, code or data; starting afresh", flush=True)
        return []
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    print(f"{path}: resuming after epoch {len(state['curve'])}", flush=True)
    return state["curve"]
