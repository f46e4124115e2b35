"""Robust accuracies that others published, each with its source: shown beside ours, never mixed."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from input_hessian.experiment.errors import UserError

COLUMNS = ["dataset", "defence", "model", "norm", "epsilon", "attack", "n_images"]
COLUMNS += ["clean_accuracy", "robust_accuracy", "source", "url", "note"]
# Largest distance of two images of 28 x 28 pixels in [0, 1].
LARGEST = {"linf": 1.0, "l2": 28.0}


def read_published(path: str | Path) -> pd.DataFrame:
    """Read the table of published numbers.

    Returns:
        One row per network, norm and epsilon: ``epsilon`` in pixel units of [0, 1], accuracies in
        percent; ``clean_accuracy`` is NaN where the source at hand does not give it.

    Raises:
        UserError: naming the row and the column of what is missing or impossible.
    """
    # "none" and "no defence" are texts, not missing values.
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    if list(table.columns) != COLUMNS:
        raise UserError(
            f"{path}: expected the columns {', '.join(COLUMNS)}, got {', '.join(table.columns)}"
        )
    for line, row in enumerate(table.to_dict("records"), start=2):
        for column in COLUMNS:
            if column != "clean_accuracy" and pd.isna(row[column]):
                raise UserError(f"{path}, line {line}: {column} is empty; state it or drop the row")
        if row["norm"] not in LARGEST:
            raise UserError(f"{path}, line {line}: norm: expected linf or l2, got {row['norm']!r}")
        bounds = {
            "epsilon": (0, LARGEST[row["norm"]]),
            "n_images": (1, float("inf")),
            "clean_accuracy": (0, 100),
            "robust_accuracy": (0, 100),
        }
        for column, (low, high) in bounds.items():
            value = row[column]
            if isinstance(value, str) or value < low or value > high:
                raise UserError(
                    f"{path}, line {line}: {column}: expected a number in [{low}, {high:g}] "
                    f"(epsilon in pixel units, accuracies in percent), got {value!r}"
                )
    return table
