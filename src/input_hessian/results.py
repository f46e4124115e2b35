"""Tables: what the attacks recorded per image, counted into tidy rows."""

from __future__ import annotations

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


def worst_case(images: pd.DataFrame) -> pd.DataFrame:
    """Return per-image rows of attack ``worst``: robust against every attack of the same norm.

    Args:
        images: rows with ``index``, ``attack``, ``norm``, ``epsilon``, ``robust``.

    Returns:
        Rows with the same columns, one per image, norm and epsilon, ``robust`` the logical and.
    """
    keys = ["index", "norm", "epsilon"]
    worst = images.groupby(keys, as_index=False)["robust"].all()
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


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table of the pipeline; the regularizer ``none`` stays a text, an empty field is NaN."""
    return pd.read_csv(path, keep_default_na=False, na_values=[""])
