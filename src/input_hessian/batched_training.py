"""Training of several cells at once, as one stacked network: the same results for fewer kernels.

Every cell keeps its own initialisation, order of images and random numbers, and Adam works number
by number, so that the arithmetic is that of :func:`input_hessian.training.train` but for the order
in which sums are rounded.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from input_hessian import regularizers
from input_hessian.errors import UserError
from input_hessian.regularizers import (
    CurvatureRegularization,
    InputGradient,
    InputHessianNorm,
    JacobianNorm,
    Regularizer,
    TaylorBound,
)
from input_hessian.stacking import SeparateGenerators, StackedNetwork
from input_hessian.training import (
    TrainingResult,
    TrainingSettings,
    adam_with_one_cycle,
    describe_epoch,
    epoch_randomness,
    evaluate,
    initial_network,
    load_checkpoint,
    progress_bar,
    save_checkpoint,
)

# Penalties whose terms are computed from lam image by image: it may be another one in each row.
LAM_PER_IMAGE = (
    InputGradient,
    InputHessianNorm,
    TaylorBound,
    CurvatureRegularization,
    JacobianNorm,
)
CHECKED = 8  # images, to see that each row is its own network's


def divide(penalties: Sequence[dict[str, Any]]) -> list[list[int]]:
    """Return which cells can train together, as lists of their indices.

    All may differ in seed; in ``lam`` only those with a penalty of :data:`LAM_PER_IMAGE`.

    Args:
        penalties: keywords of :func:`input_hessian.regularizers.build`, one dictionary per cell.
    """
    groups: dict[str, list[int]] = {}
    for i, penalty in enumerate(penalties):
        shared = dict(penalty)
        if regularizers.REGULARIZERS.get(penalty["penalty"]) in LAM_PER_IMAGE:
            del shared["lam"]
        groups.setdefault(repr(sorted(shared.items())), []).append(i)
    return list(groups.values())


def train_together(
    build_model: Callable[[], nn.Sequential],
    penalties: Sequence[dict[str, Any]],
    training: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    settings: Sequence[TrainingSettings],
    *,
    device: torch.device,
    checkpoint: Path | None = None,
    fingerprint: str = "",
) -> list[tuple[nn.Module, TrainingResult]]:
    """Train one network per cell, all in the same steps.

    Args:
        build_model: returns a freshly initialised network.
        penalties: of the cells, one group of :func:`divide`.
        training: as for :func:`input_hessian.training.train`, as are the other arguments.
        validation: likewise.
        settings: of the cells; they differ in the seed alone.
        device: likewise.
        checkpoint: likewise, one for all.
        fingerprint: likewise, of all.

    Returns:
        For every cell what :func:`input_hessian.training.train` returns for it, up to rounding.
        ``seconds`` of its curve are its share of what the step of all took.  A network that
        diverges costs the others nothing, and its own share to the end.

    Raises:
        UserError: for a network or random numbers that cannot be stacked, and for a regularizer
            that couples images, or the networks of the stack.
    """
    networks = [initial_network(build_model, own.seed) for own in settings]
    model = StackedNetwork(networks).to(device)
    networks = [network.to(device) for network in networks]
    images, labels = (tensor.to(device) for tensor in training)
    _check_separate(model, networks, penalties, images[:CHECKED], labels[:CHECKED])
    optimizer, schedule = adam_with_one_cycle(model, settings[0], len(images))
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    # `diverged`: the last finite parameters of networks that diverged.
    empty = {"curves": [[] for _ in settings], "diverged": {}}
    record = load_checkpoint(checkpoint, fingerprint, parts, empty)
    curves, diverged = record["curves"], record["diverged"]
    epochs, done = settings[0].epochs, max(map(len, curves))

    with progress_bar(settings[0], len(images), done) as progress:
        for epoch in range(done, epochs):
            before = [model.network_state(i) for i in range(len(networks))]
            rows = _run_epoch(
                *(model, penalties, images, labels, optimizer, schedule),
                *(settings, epoch, progress),
            )
            for i, row in enumerate(rows):
                if i in diverged:
                    continue
                networks[i].load_state_dict(model.network_state(i))
                loss, accuracy = evaluate(networks[i], *validation)
                who = f"lam {penalties[i]['lam']:g}, seed {settings[i].seed}, "
                if not all(map(math.isfinite, (row["loss"], row["penalty"], loss))):
                    diverged[i] = before[i]
                    progress.write(f"{who}epoch {epoch + 1}/{epochs}: diverged")
                    continue
                row |= {"validation_loss": loss, "validation_accuracy": accuracy}
                curves[i].append({"epoch": epoch + 1, **row})
                progress.write(who + describe_epoch(curves[i][-1], epochs))
            if len(diverged) == len(networks):
                break
            save_checkpoint(checkpoint, fingerprint, parts, record, epoch + 1)
    for i, network in enumerate(networks):
        network.load_state_dict(diverged.get(i, model.network_state(i)))
    status = ["diverged" if i in diverged else "finished" for i in range(len(networks))]
    return [
        (network, TrainingResult(*result))
        for network, *result in zip(networks, status, curves, strict=True)
    ]


def _check_separate(model, networks, penalties, images, labels) -> None:
    """Raise UserError unless the stack's objective is, row by row, that of each network alone."""
    count, size = len(networks), len(images)
    generators = [torch.Generator(images.device).manual_seed(i) for i in range(count)]
    rows = [tensor.repeat(count, *[1] * (tensor.ndim - 1)) for tensor in (images, labels)]
    with SeparateGenerators(generators, rows=count * size) as draws:
        together = _build(penalties, size, images)(model, *rows, draws.shared)
    for i, (network, penalty) in enumerate(zip(networks, penalties, strict=True)):
        generator = torch.Generator(images.device).manual_seed(i)
        alone = regularizers.build(**penalty)(network, images, labels, generator)
        for name in ("loss", "penalty"):
            found, expected = (getattr(both, name).detach() for both in (together, alone))
            if found.shape == (count * size,) and expected.shape == (size,):
                own = found[i * size : (i + 1) * size]
                # Rounding is far below; a huge lam may overflow in both.
                if torch.allclose(own, expected, rtol=1e-2, atol=1e-4, equal_nan=True):
                    continue
            raise UserError(
                f"penalty {penalty['penalty']!r}: its {name} in networks that train together is not "
                "the one of each network alone; it must be one value per image, and depend on no "
                "other image and on the network's outputs alone; leave out `batch_cells`"
            )


def _run_epoch(
    model, penalties, images, labels, optimizer, schedule, settings, epoch, progress
) -> list[dict[str, float]]:
    """Run one epoch; return every cell's means, as they are."""
    count, device = len(settings), images.device
    randomness = [epoch_randomness(own.seed, epoch, len(images), device) for own in settings]
    orders = torch.stack([order for order, _ in randomness])
    generators = [generator for _, generator in randomness]
    batches = orders.split(settings[0].batch_size, dim=1)
    regularizer = {size: _build(penalties, size, images) for size in {b.shape[1] for b in batches}}
    totals = torch.zeros(3, count, device=device, dtype=images.dtype)
    began = time.perf_counter()
    model.train()
    for batch in batches:
        size, batch = batch.shape[1], batch.flatten()
        with SeparateGenerators(generators, rows=len(batch)) as draws:
            objective = regularizer[size](model, images[batch], labels[batch], draws.shared)
        optimizer.zero_grad(set_to_none=True)
        # Summed over the cells, whose parameters are their own, and averaged within each.
        ((objective.loss + objective.penalty).sum() / size).backward()
        optimizer.step()
        schedule.step()
        correct = objective.logits.argmax(1) == labels[batch]
        measured = torch.stack([objective.loss, objective.penalty, correct]).detach()
        totals += measured.unflatten(1, (count, size)).sum(2)
        progress.update()
    loss, penalty, accuracy = (totals / len(images)).tolist()
    seconds = (time.perf_counter() - began) / count  # .tolist() has waited for the device
    return [
        {
            "loss": loss[i],
            "penalty": penalty[i],
            "accuracy": accuracy[i],
            "seconds": seconds,
            "steps": len(batches),
        }
        for i in range(count)
    ]


def _build(penalties: Sequence[dict[str, Any]], images: int, like: Tensor) -> Regularizer:
    """Return the regularizer of the stack, for so many images per cell."""
    lams = [penalty["lam"] for penalty in penalties]
    lam = lams[0]
    if len(set(lams)) > 1:
        lam = torch.tensor(lams, dtype=like.dtype, device=like.device).repeat_interleave(images)
    return regularizers.build(**penalties[0] | {"lam": lam})
