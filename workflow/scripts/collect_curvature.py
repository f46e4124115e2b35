"""Describe every cell's curvature, and how its predicted radii compare with an attack's."""

import argparse
import json
from pathlib import Path

import pandas as pd

from input_hessian.experiment.cells import cell_folders
from input_hessian.experiment.errors import UserError, run
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.results import compare_radius, describe_curvature, with_distance
from input_hessian.experiment.tables import CELL


def per_image(folder: Path) -> pd.DataFrame:
    """Return a cell's measurements with the distance that DDN found, one row per image."""
    images = pd.read_parquet(folder / "curvature.parquet")
    images = with_distance(images, pd.read_parquet(folder / "perturbations.parquet"))
    missing = images["distance"].isna().sum()
    if missing:
        raise UserError(
            f"{folder}/perturbations.parquet: expected every image of curvature.parquet, attacked "
            f"by ddn at l2, got none for {missing} of {len(images)}; add ddn to evaluation.attacks"
        )
    return images


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", type=json.loads, required=True, help="which cells, as JSON")
    parser.add_argument("--output", type=Path, required=True, help="output: one row per cell")
    args = parser.parse_args()
    rows = []
    for folder in cell_folders(args.grid):
        images = per_image(folder)
        if images.empty:  # the cell diverged: its status says so in the table of cells
            continue
        identity = images[CELL].iloc[0].to_dict()
        rows.append(identity | describe_curvature(images) | compare_radius(images))
    table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=[*CELL, "n"])
    write_atomically(args.output, table.to_csv(index=False))


if __name__ == "__main__":
    run(main)
