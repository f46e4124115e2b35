"""What is known of one network, as a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from input_hessian.experiment.checkpoints import load_checkpoint
from input_hessian.experiment.curvature import measure
from input_hessian.experiment.data import class_names, evaluation_images
from input_hessian.experiment.devices import configure, with_float64
from input_hessian.experiment.errors import UserError
from input_hessian.experiment.evaluate import ATTACKS, outcomes
from input_hessian.experiment.exported import SUFFIX
from input_hessian.experiment.masking import Check, check_masking
from input_hessian.experiment.models import load_model
from input_hessian.experiment.results import robust_accuracy, worst_case
from input_hessian.experiment.table_text import NORMS, dataset_title, percent, with_interval


def evaluate_and_describe(
    checkpoint: Path,
    data: Path,
    architecture: str,
    options: Mapping[str, Any],
    count: int,
    epsilons: Mapping[str, Sequence[float]],
    queries: int,
    seed: int,
) -> str:
    """Attack, measure and check a network on ``count`` test images, as the workflow would.

    Args:
        checkpoint: a model of this pipeline, with ``architecture`` any state dict, or an exported program.
        data: prepared data set.
        architecture: as for :func:`load_checkpoint`; empty for a model of this pipeline, too.
        options: likewise.
        count: test images, the workflow's subset.
        epsilons: radii per norm; the largest are the headline radii.
        queries: of the masking checks.
        seed: of the attacks and the masking checks.

    Raises:
        UserError: as the functions called.
    """
    place = configure("auto", threads=1)  # as the workflow's jobs
    images, labels, _ = evaluation_images(data, count)
    if architecture or checkpoint.suffix == SUFFIX:
        network = load_checkpoint(
            checkpoint,
            architecture=architecture,
            image_shape=list(images.shape[1:]),
            classes=len(class_names(data)),
            options=options,
        ).to(place)
    elif options:
        raise UserError("options: a model of this pipeline has its own; leave them out")
    else:
        network, status = load_model(checkpoint, place)
        if status != "finished":
            raise UserError(f"{checkpoint}: the training {status}; there is nothing to evaluate")
    found = outcomes(network, images, labels, epsilons=epsilons, seed=seed)
    checks = check_masking(
        network,
        images,
        labels,
        found,
        {attack.norm: attack for attack in ATTACKS if attack.attack == "pgd"},
        {norm: list(radii)[-1:] for norm, radii in epsilons.items()},
        queries=queries,
        seed=seed,
    )
    exact = with_float64(place)
    curvature = pd.concat(
        measure(network.to(exact).double(), images.to(exact).double(), labels.to(exact))
    )
    accuracies = robust_accuracy(pd.concat([found, worst_case(found)]))
    return "\n\n".join(
        [
            f"{checkpoint}: {dataset_title(data.stem)}, {count} test images, accuracies in percent with "
            "95% intervals",
            *describe_accuracies(accuracies),
            describe_curvature(curvature),
            describe_checks(checks),
        ]
    )


def describe_accuracies(accuracies: pd.DataFrame) -> list[str]:
    """Return the clean accuracy and one table per norm: attacks in rows, radii in columns."""
    parts = (percent(accuracies[name]) for name in ("robust_accuracy", "low", "high"))
    table = accuracies.assign(text=with_interval(*parts))
    clean = table[table["epsilon"] == 0]
    blocks = [f"clean: {clean['text'].iloc[0]}"]
    order = list(dict.fromkeys([*(attack.attack for attack in ATTACKS), "worst"]))
    for norm, rows in table[table["epsilon"] > 0].groupby("norm", sort=False):
        wide = rows.pivot(index="attack", columns="epsilon", values="text").fillna("")
        wide = wide.loc[[attack for attack in order if attack in wide.index]]
        wide.columns = [f"{epsilon:g}" for epsilon in wide.columns]
        blocks.append(wide.rename_axis(NORMS[norm]).to_markdown(disable_numparse=True))
    return blocks


def describe_curvature(curvature: pd.DataFrame) -> str:
    """Return the medians of gradient and Hessian norm, and of how many images they converged."""
    medians = curvature[["gradient_norm", "hessian_norm"]].median()
    return (
        f"median norm of the loss's gradient: {medians['gradient_norm']:.3g}, of its Hessian: "
        f"{medians['hessian_norm']:.3g} (converged: {curvature['converged'].sum()} of {len(curvature)})"
    )


def describe_checks(checks: Sequence[Check]) -> str:
    """Return which checks for gradient masking were flagged."""
    flagged = [
        f"{check.check} {check.value:.3g} > {check.threshold:.3g}"
        for check in checks
        if check.flagged
    ]
    counted = sum(check.threshold == check.threshold for check in checks)  # not NaN
    return f"gradient masking: {', '.join(flagged) or 'no flag'} ({counted} checks)"
