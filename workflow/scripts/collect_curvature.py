"""Describe every cell's curvature, and how its predicted radii compare with an attack's."""

import argparse
import json
from pathlib import Path

import pandas as pd
from collect import cell_folders

from input_hessian.errors import UserError, run
from input_hessian.files import write_atomically
from input_hessian.results import CELL, compare_radius, describe_curvature


def per_image(folder: Path) -> pd.DataFrame:
    """Return a cell's measurements with the distance that DDN found, one row per image."""
    curvature = pd.read_parquet(folder / "curvature.parquet")
    distance = pd.read_parquet(folder / "perturbations.parquet")
    distance = distance[(distance["attack"] == "ddn") & (distance["norm"] == "l2")]
    if sorted(curvature["index"]) != sorted(distance["index"]):
        raise UserError(
            f"{folder}: expected the same images in curvature.parquet and, attacked by ddn, in "
            f"perturbations.parquet, got {len(curvature)} and {len(distance)} that differ; add "
            "{attack: ddn, norm: l2} to evaluation.attacks, or delete both files"
        )
    return curvature.merge(distance[["index", "distance"]], on="index", validate="one_to_one")


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
