"""Words and formats of the tables that people read."""

import pandas as pd

NORMS = {"linf": "l∞", "l2": "l2"}
DATASETS = {
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "cifar10": "CIFAR-10",
    "digits": "Digits (8x8)",
}


def dataset_title(name: str) -> str:
    """Return what texts and titles call a data set; one of a user's own keeps its name."""
    return DATASETS.get(name, name)


def percent(values: pd.Series) -> pd.Series:
    """Format fractions as percentages with one decimal."""
    return (100 * values).map("{:z.1f}".format)


def with_interval(middle: pd.Series, low: pd.Series, high: pd.Series) -> pd.Series:
    """Return ``middle [low, high]`` of numbers that are formatted already."""
    return middle + " [" + low + ", " + high + "]"


def wide_by_lam(rows: pd.DataFrame, by: str) -> pd.DataFrame:
    """Return one row per regularizer and lam, and ``text`` in one column per value of ``by``.

    Rows and columns in their order of appearance.
    """
    wide = rows.pivot_table(
        index=["regularizer", "lam"], columns=by, values="text", aggfunc="first", sort=False
    )
    order = pd.MultiIndex.from_frame(rows[["regularizer", "lam"]].drop_duplicates())
    wide = wide.loc[order, rows[by].unique()].reset_index()
    return wide.assign(lam=wide["lam"].map("{:g}".format))
