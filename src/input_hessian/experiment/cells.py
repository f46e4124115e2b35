"""The cells of a configuration, for the scripts that read all of them."""

from pathlib import Path


def cell_folders(grid: dict) -> list[Path]:
    """Return the folder of every cell of the grid."""
    return [
        Path(grid["results"]) / dataset / regularizer / f"lam~{lam}" / f"seed~{seed}"
        for dataset, regularizers in grid["datasets"].items()
        for regularizer, lams in regularizers.items()
        for lam in lams
        for seed in grid["seeds"]
    ]
