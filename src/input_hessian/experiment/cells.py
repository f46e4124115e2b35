"""The cells of a configuration, for the scripts that read all of them."""

from pathlib import Path

import pandas as pd


def cell_folder(
    results: str | Path, dataset: str, regularizer: str, lam: str | float, seed: int
) -> Path:
    """Return the folder of a cell; ``lam`` is a number, or the text that stands for it in paths."""
    lam = lam if isinstance(lam, str) else f"{lam:g}"
    return Path(results) / dataset / regularizer / f"lam~{lam}" / f"seed~{seed}"


def cell_folders(grid: dict) -> list[Path]:
    """Return the folder of every cell of the grid; its ``networks`` have the first seed alone."""
    networks = grid.get("networks", [])
    return [
        cell_folder(grid["results"], dataset, regularizer, lam, seed)
        for dataset, regularizers in grid["datasets"].items()
        for regularizer, lams in regularizers.items()
        for lam in lams
        for seed in (grid["seeds"][:1] if regularizer in networks else grid["seeds"])
    ]


def imported(table: pd.DataFrame) -> pd.Series:
    """Return which rows are of networks that were trained elsewhere: lam 0 without being plain training."""
    return (table["lam"] == 0) & (table["regularizer"] != "none")
