"""Tables: what the attacks recorded per image, counted into tidy rows."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
from scipy.stats import binomtest

CELL = ["dataset", "regularizer", "lam", "seed"]


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion (Wilson 1927).

    Raises:
        ValueError: if there are no trials, or more successes than trials.
    """
    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return interval.low, interval.high


def broken_at(images: pd.DataFrame) -> pd.Series:
    """Return the smallest epsilon at which any attack broke an image.

    Args:
        images: rows with ``index``, ``attack``, ``norm``, ``epsilon``, ``robust``.

    Returns:
        Indexed by ``index`` and ``norm``; 0 where the network is wrong already, infinite where no
        attack succeeded.
    """
    epsilon = images["epsilon"].where(~images["robust"].astype(bool), math.inf)
    return epsilon.groupby([images["index"], images["norm"]]).min()


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


def select(cells: pd.DataFrame, max_clean_loss: float) -> pd.DataFrame:
    """Choose one weight per dataset and regularizer, by validation images alone.

    Among the weights whose mean validation accuracy is at most ``max_clean_loss`` below that of
    plain training, the one of largest mean robust accuracy; where no weight keeps that much, the
    one of largest validation accuracy.  A weight with a diverged seed is chosen only if every
    other one has one too.

    Args:
        cells: one row per cell: ``dataset, regularizer, lam, seed, status, validation_accuracy``
            and ``validation_robust_accuracy``; plain training is the regularizer ``none``.
        max_clean_loss: a fraction, 0.01 for one point.

    Returns:
        One row per dataset, regularizer and weight: ``seeds`` (that finished), the two accuracies
        (means over these), ``eligible`` and ``selected``.
    """
    finished = cells["status"] == "finished"
    accuracies = ["validation_accuracy", "validation_robust_accuracy"]
    cells = cells.assign(**{name: cells[name].where(finished).astype(float) for name in accuracies})
    groups = cells.groupby(["dataset", "regularizer", "lam"], sort=False)
    table = (
        groups[accuracies]
        .mean()
        .assign(seeds=groups["validation_accuracy"].count(), planned=groups.size())
    )
    table = table.reset_index()
    plain = table[table["regularizer"] == "none"].set_index("dataset")["validation_accuracy"]
    # A hundredth of an image, so that rounding decides nothing.
    least = table["dataset"].map(plain) - max_clean_loss - 1e-6
    complete = table["seeds"] == table.pop("planned")
    table["eligible"] = complete & (table["validation_accuracy"] >= least)
    table["selected"] = False
    for _, rows in table.groupby(["dataset", "regularizer"]):
        order = rows.assign(complete=complete[rows.index])
        merit = order["validation_robust_accuracy" if rows["eligible"].any() else accuracies[0]]
        order["merit"] = merit.fillna(-1)
        best = order.sort_values(["eligible", "complete", "merit"], ascending=False, kind="stable")
        table.loc[best.index[0], "selected"] = True
    return table


def selected_lam(path: str | Path, dataset: str, regularizer: str) -> float:
    """Return the weight that the table of :func:`select` chose."""
    table = read_table(path)
    chosen = table["selected"] & (table["dataset"] == dataset)
    (lam,) = table.loc[chosen & (table["regularizer"] == regularizer), "lam"]
    return lam


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table of the pipeline; the regularizer ``none`` stays a text, an empty field is NaN."""
    return pd.read_csv(path, keep_default_na=False, na_values=[""])
