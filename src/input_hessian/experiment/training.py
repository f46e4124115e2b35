"""Training of one cell: deterministic under its seed, resumable after every epoch.

Adam with a one-cycle learning rate; the objective is ``(loss + penalty).mean()`` of the cell's
penalty.  The last epoch's parameters are the result: no checkpoint is picked, so neither
validation nor test data influence them.
"""

from __future__ import annotations

import io
import math
import time
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from tqdm import tqdm

from input_hessian.experiment.errors import UserError
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.inference import evaluate
from input_hessian.penalties import Objective, Penalty


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


def training_step(model, penalty, optimizer, images, labels, generator) -> Objective:
    """Take one step down ``(loss + penalty).mean()``; return the objective before it.

    Raises:
        UserError: unless loss and penalty have one value per image.
    """
    objective = penalty(model, images, labels, generator)
    for name in ("loss", "penalty"):
        if (shape := getattr(objective, name).shape) != labels.shape:
            raise UserError(
                f"penalty: expected a {name} of shape ({len(labels)},), one value per image, from "
                f"{type(penalty).__name__}, got {tuple(shape)}"
            )
    optimizer.zero_grad(set_to_none=True)
    (objective.loss + objective.penalty).mean().backward()
    optimizer.step()
    return objective


def train(
    build_model: Callable[[], nn.Module],
    penalty: Penalty,
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
        penalty: the per-image objective.
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
    model = initial_network(build_model, settings.seed).to(device)
    images, labels = (tensor.to(device) for tensor in training)
    steps = settings.epochs * _steps_per_epoch(settings, len(images))
    optimizer = OneCycleAdam(model.parameters(), settings.learning_rate, steps)
    parts = {"model": model, "optimizer": optimizer}
    curve = load_checkpoint(checkpoint, fingerprint, parts, [])

    with progress_bar(settings, len(images), done=len(curve)) as progress:
        for epoch in range(len(curve), settings.epochs):
            before = {name: value.clone() for name, value in model.state_dict().items()}
            row = _run_epoch(model, penalty, images, labels, optimizer, settings, epoch, progress)
            if row is not None:
                row["validation_loss"], row["validation_accuracy"] = evaluate(model, *validation)
            if row is None or not math.isfinite(row["validation_loss"]):
                model.load_state_dict(before)
                progress.write(f"epoch {epoch + 1}/{settings.epochs}: diverged")
                return model, TrainingResult("diverged", curve)
            curve.append({"epoch": epoch + 1, **row})
            save_checkpoint(checkpoint, fingerprint, parts, curve, epoch + 1)
            progress.write(describe_epoch(curve[-1], settings.epochs))
    return model, TrainingResult("finished", curve)


def initial_network(build_model: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Return a new network, drawn under its seed; the global generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_model()


class OneCycleAdam:
    """Adam (Kingma & Ba 2015) under the one-cycle schedule (Smith & Topin 2018).

    The numbers are those of ``torch.optim.Adam`` under ``OneCycleLR``, to the last bit, and so are the
    defaults.  PyTorch's classes import its compiler, which takes longer than a small network's training.

    Args:
        parameters: to be trained.
        learning_rate: peak of the schedule, after 30% of the steps.
        steps: of the whole training.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float, steps: int):
        self.parameters = list(parameters)
        self.learning_rate, self.steps = learning_rate, steps
        self.step_count = 0
        self.state = [
            (torch.tensor(0.0), torch.zeros_like(parameter), torch.zeros_like(parameter))
            for parameter in self.parameters
        ]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def schedule(self) -> tuple[float, float]:
        """Return learning rate and beta1 of the next step."""
        lowest = self.learning_rate / 25
        peak, last = 0.3 * self.steps - 1, self.steps - 1
        if self.step_count <= peak:
            parts, rates, betas = self.step_count / peak, (lowest, self.learning_rate), (0.95, 0.85)
        else:
            parts = (self.step_count - peak) / (last - peak)
            rates, betas = (self.learning_rate, lowest / 1e4), (0.85, 0.95)
        weight = math.cos(math.pi * parts) + 1
        rate, beta = (end + (start - end) / 2.0 * weight for start, end in (rates, betas))
        return rate, beta

    @torch.no_grad()
    def step(self) -> None:
        """Update the parameters that have a gradient."""
        rate, beta = self.schedule()
        used = [
            (parameter, parameter.grad, *state)
            for parameter, state in zip(self.parameters, self.state, strict=True)
            if parameter.grad is not None
        ]
        if used:
            parameters, gradients, counts, means, squares = map(list, zip(*used, strict=True))
            adam(
                *(parameters, gradients, means, squares, [], counts),
                **{"amsgrad": False, "beta1": beta, "beta2": 0.999, "lr": rate},
                **{"weight_decay": 0, "eps": 1e-8, "maximize": False},
            )
        self.step_count += 1

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"step": self.step_count, "state": self.state}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        self.step_count = saved["step"]
        for own, kept in zip(self.state, saved["state"], strict=True):
            for tensor, value in zip(own, kept, strict=True):
                tensor.copy_(value)


def progress_bar(settings: TrainingSettings, images: int, done: int) -> tqdm:
    """Return a bar of training steps, of which those of ``done`` epochs are over."""
    steps = _steps_per_epoch(settings, images)
    return tqdm(
        total=settings.epochs * steps,
        initial=done * steps,
        unit="step",
        disable=None,  # a log file gets one line per epoch instead of a bar
        leave=False,
    )


def _steps_per_epoch(settings: TrainingSettings, images: int) -> int:
    return -(-images // settings.batch_size)


def epoch_randomness(
    seed: int, epoch: int, images: int, device: torch.device
) -> tuple[Tensor, torch.Generator]:
    """Return the order of the training images in one epoch, and what the penalty draws from.

    Seeded by seed and epoch and by nothing else, so that a resumed run draws the same numbers.
    """
    order_seed, start_seed = (2 * (seed * 100_003 + epoch) + part for part in (0, 1))
    order = torch.randperm(images, generator=torch.Generator().manual_seed(order_seed))
    return order.to(device), torch.Generator(device).manual_seed(start_seed)


def _run_epoch(
    model, penalty, images, labels, optimizer, settings, epoch, progress
) -> dict[str, float] | None:
    """Run one epoch; return its means, or None if the objective was not finite."""
    device = images.device
    order, starts = epoch_randomness(settings.seed, epoch, len(images), device)
    totals = torch.zeros(3, device=device)
    began = time.perf_counter()
    batches = order.split(settings.batch_size)
    model.train()
    for batch in batches:
        objective = training_step(model, penalty, optimizer, images[batch], labels[batch], starts)
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


def describe_epoch(row: dict[str, float], epochs: int) -> str:
    """Return one line about an epoch, a row of the curve."""
    return (
        f"epoch {row['epoch']}/{epochs}: loss {row['loss']:.4f}, penalty {row['penalty']:.4f}, "
        f"accuracy {row['accuracy']:.4f}, validation accuracy {row['validation_accuracy']:.4f}, "
        f"{row['seconds']:.1f} s"
    )


def save_checkpoint(
    path: Path | None, fingerprint: str, parts: dict[str, Any], record: Any, epoch: int
) -> None:
    """Write what a training needs to go on after ``epoch``; nothing if there is no path.

    Args:
        path: file to write, whole or not at all.
        fingerprint: see :func:`train`.
        parts: objects with a ``state_dict``, by name.
        record: what else to keep, of plain types and tensors.
        epoch: number of finished epochs.
    """
    if path is None:
        return
    state = {
        "fingerprint": fingerprint,
        "parts": {name: part.state_dict() for name, part in parts.items()},
        "record": record,
        "epoch": epoch,
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(
    path: Path | None, fingerprint: str, parts: dict[str, Any], default: Any
) -> Any:
    """Load a checkpoint into the parts and return its record; ``default`` if there is none to use.

    Arguments as in :func:`save_checkpoint`.  A damaged file and one with another fingerprint are
    not used, which is said.
    """
    if path is None or not path.exists():
        return default
    try:
        with zipfile.ZipFile(path) as file:  # torch.load does not verify the checksums in it
            if (damaged := file.testzip()) is not None:
                raise zipfile.BadZipFile(f"{damaged} is damaged")
        # On the CPU first: load_state_dict moves what belongs on the device, and no more.
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a damaged file
        print(f"{path}: unreadable ({error}); starting afresh", flush=True)
        return default
    if state["fingerprint"] != fingerprint:
        print(f"{path}: written by other settings, code or data; starting afresh", flush=True)
        return default
    for name, part in parts.items():
        part.load_state_dict(state["parts"][name])
    print(f"{path}: resuming after epoch {state['epoch']}", flush=True)
    return state["record"]
