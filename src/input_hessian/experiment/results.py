"""Tables: what the attacks recorded per image, counted into tidy rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.stats import binomtest, spearmanr

from input_hessian.experiment.tables import broken_at

CURVATURE = ["gradient_norm", "hessian_norm", "largest_eigenvalue", "margin", "logit_scale"]
QUANTILES = {"q05": 0.05, "q25": 0.25, "median": 0.5, "q75": 0.75, "q95": 0.95}


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion (Wilson 1927).

    Raises:
        ValueError: if there are no trials, or more successes than trials.
    """
    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return interval.low, interval.high


def worst_case(images: pd.DataFrame) -> pd.DataFrame:
    """Return per-image rows of attack ``worst``: robust against every attack of the same norm.

    An adversarial example lies in every larger ball as well, so an image that any attack broke at
    an epsilon is broken from there on, also where attacks ran at different radii: robust accuracy
    falls with epsilon by construction.

    Args:
        images: rows with ``index``, ``attack``, ``norm``, ``epsilon``, ``robust``.

    Returns:
        Rows with the same columns, one per image, norm and epsilon.
    """
    worst = images[["index", "norm", "epsilon"]].drop_duplicates()
    smallest = broken_at(images).rename("broken_at").reset_index()
    worst = worst.merge(smallest, on=["index", "norm"])
    worst["robust"] = worst["epsilon"] < worst["broken_at"]
    return worst.assign(attack="worst")[images.columns]


def robust_accuracy(images: pd.DataFrame) -> pd.DataFrame:
    """Return robust accuracy with its 95% Wilson interval, per attack, norm and epsilon.

    Args:
        images: rows with ``index``, ``attack``, ``norm``, ``epsilon``, ``robust`` of one cell.

    Returns:
        Columns ``attack, norm, epsilon, n, robust, robust_accuracy, low, high``.

    Raises:
        ValueError: if an image stands twice under one attack, norm and epsilon.
    """
    if images.duplicated(["attack", "norm", "epsilon", "index"]).any():
        raise ValueError("expected one row per image, attack, norm and epsilon, got several")
    grouped = images.groupby(["attack", "norm", "epsilon"], as_index=False)["robust"]
    table = grouped.agg(n="size", robust="sum")
    table["robust_accuracy"] = table["robust"] / table["n"]
    intervals = [wilson_interval(k, n) for k, n in zip(table["robust"], table["n"], strict=True)]
    table[["low", "high"]] = intervals
    return table


def select(cells: pd.DataFrame, max_clean_loss: Mapping[str, float]) -> pd.DataFrame:
    """Choose one lam per dataset and regularizer, by validation images alone.

    Among the values of lam whose mean validation accuracy is at most ``max_clean_loss`` below that of
    plain training, the one of largest mean robust accuracy; where none keeps that much, the
    one of largest validation accuracy.  A lam with a diverged seed is chosen only if every
    other one has one too.

    Args:
        cells: one row per cell: ``dataset, regularizer, lam, seed, status, validation_accuracy``, its
            ``validation_linf`` and ``validation_l2``, robust accuracies under attacks of that norm, and
            ``validation_robust_accuracy``, of all; plain training is the regularizer ``none``.
        max_clean_loss: per dataset, in percentage points.

    Returns:
        One row per dataset, regularizer and lam: ``seeds`` (that finished), ``complete`` (all did), the
        accuracies (means over these), ``eligible`` and ``selected``.
    """
    finished = cells["status"] == "finished"
    robust = ["validation_linf", "validation_l2", "validation_robust_accuracy"]
    accuracies = ["validation_accuracy", *robust]
    cells = cells.assign(**{name: cells[name].where(finished).astype(float) for name in accuracies})
    groups = cells.groupby(["dataset", "regularizer", "lam"], sort=False)
    table = groups[accuracies].mean().assign(seeds=groups["validation_accuracy"].count())
    table["complete"] = table["seeds"] == groups.size()
    table = table.reset_index()
    table["eligible"] = table["complete"] & (
        table["validation_accuracy"] >= least_accuracy(table, max_clean_loss)
    )
    table["selected"] = False
    for _, rows in table.groupby(["dataset", "regularizer"]):
        merit = rows["validation_robust_accuracy" if rows["eligible"].any() else accuracies[0]]
        best = rows.assign(merit=merit.fillna(-1)).sort_values(
            ["eligible", "complete", "merit"], ascending=False, kind="stable"
        )
        table.loc[best.index[0], "selected"] = True
    return table


def least_accuracy(selection: pd.DataFrame, max_clean_loss: Mapping[str, float]) -> pd.Series:
    """Return the validation accuracy that may not be undercut, for each row of a selection."""
    plain = selection[selection["regularizer"] == "none"].set_index("dataset")
    least = plain["validation_accuracy"] - pd.Series(max_clean_loss) / 100
    # Far less than one image, so that rounding decides nothing.
    return selection["dataset"].map(least) - 1e-6


def describe_curvature(images: pd.DataFrame) -> dict[str, float]:
    """Return mean and quantiles of every measure of :data:`CURVATURE`, and what converged.

    Args:
        images: one row per image, with the measures and ``converged``.
    """
    described = {"n": len(images), "converged": images["converged"].mean()}
    for measure in CURVATURE:
        described[f"{measure}_mean"] = images[measure].mean()
        for name, part in QUANTILES.items():
            described[f"{measure}_{name}"] = images[measure].quantile(part)
    return described


def with_distance(images: pd.DataFrame, perturbations: pd.DataFrame) -> pd.DataFrame:
    """Return the images with ``distance``, the l2 size of the smallest perturbation DDN found.

    Args:
        images: one row per image, with ``index``.
        perturbations: rows with ``index``, ``attack``, ``norm`` and ``distance``: 0 for an image
            that is misclassified anyway, infinite for one that was not broken.

    Returns:
        The same rows; the distance of an image that DDN did not attack is NaN.
    """
    ddn = perturbations[(perturbations["attack"] == "ddn") & (perturbations["norm"] == "l2")]
    distance = images["index"].map(ddn.set_index("index")["distance"])
    return images.assign(distance=distance.astype(float))


def broken_images(images: pd.DataFrame) -> pd.DataFrame:
    """Return the images that are classified correctly and were broken, see :func:`with_distance`."""
    return images[images["correct"].astype(bool) & np.isfinite(images["distance"])]


def compare_radius(images: pd.DataFrame) -> dict[str, float]:
    """Compare the predicted radius with the smallest perturbation that an attack found.

    Only images that are classified correctly and were broken are compared.

    Args:
        images: one row per image, with ``correct``, ``loss``, ``predicted_radius``,
            ``hessian_norm``, ``margin`` and ``distance``.

    Returns:
        ``compared``: their number; ``bound_holds``: share with ``predicted_radius <= distance``;
        ``above_threshold``: share with ``loss >= log 2``, whose predicted radius is 0 and where the
        bound says nothing; ``median_ratio`` of predicted to found; rank correlations with the
        distance (NaN where one of both is constant) of the predicted radius, ``spearman_predicted``, of
        ``1/||H||``, ``spearman_hessian``, and of what any network offers, ``spearman_loss`` (of the
        negative loss) and ``spearman_margin``.
    """
    images = broken_images(images)
    predicted, distance = images["predicted_radius"], images["distance"]

    def correlation(values: pd.Series) -> float:
        constant = values.nunique() < 2 or distance.nunique() < 2
        return np.nan if constant else spearmanr(values, distance).statistic

    return {
        "compared": len(images),
        "bound_holds": (predicted <= distance).mean(),
        "above_threshold": (images["loss"] >= np.log(2)).mean(),
        "median_ratio": (predicted / distance).median(),
        "spearman_predicted": correlation(predicted),
        "spearman_hessian": correlation(-images["hessian_norm"]),
        "spearman_loss": correlation(-images["loss"]),
        "spearman_margin": correlation(images["margin"]),
    }
