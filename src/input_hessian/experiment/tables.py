"""What the tables have in common; apart from :mod:`results`, on whose edits no attack depends."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

CELL = ["dataset", "regularizer", "lam", "seed"]


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table of the pipeline; names stay texts (``none``, ``1e5``), an empty field is NaN."""
    names = dict.fromkeys(["dataset", "regularizer", "reference"], str)
    return pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=names)


def empty_table(columns: list[str]) -> pd.DataFrame:
    """Return a table without rows, as of a diverged cell, whose columns have the usual types.

    Without types, the empty table would make objects of the numbers that it is put together with.
    """
    kinds = {"index": int, "label": int, "seed": int, "robust": bool, "correct": bool}
    kinds |= {"converged": bool, **dict.fromkeys(["dataset", "regularizer", "attack", "norm"], str)}
    return pd.DataFrame({name: pd.Series(dtype=kinds.get(name, float)) for name in columns})


def better_than_guessing(cells: pd.DataFrame) -> pd.Series:
    """Return which networks are more accurate than guessing the most frequent class would be."""
    return cells["test_low"] > cells["constant_accuracy"]


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


def selected_lams(path: str | Path, dataset: str) -> dict[str, float]:
    """Return the lam of every regularizer that the table of ``select`` in :mod:`results` chose."""
    table = read_table(path)
    chosen = table[table["selected"] & (table["dataset"] == dataset)]
    return dict(zip(chosen["regularizer"], chosen["lam"], strict=True))
