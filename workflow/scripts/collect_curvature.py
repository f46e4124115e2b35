"""Describe every cell's curvature, and how its predicted radii compare with an attack's."""

import pandas as pd

from input_hessian.experiment.cells import cell_folders
from input_hessian.experiment.command import Output, Settings, run
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.readers import read_parquet
from input_hessian.experiment.results import compare_radius, describe_curvature, with_distance
from input_hessian.experiment.tables import CELL


def main(*, settings: Settings, csv: Output) -> None:
    rows = []
    for folder in cell_folders(settings["grid"]):
        images = read_parquet(folder / "curvature.parquet")
        if images.empty:  # the cell diverged: see its status in the table of cells
            continue
        row = images[CELL].iloc[0].to_dict() | describe_curvature(images)
        perturbations = read_parquet(folder / "perturbations.parquet")
        if not perturbations.empty:  # else the configuration leaves the attack out
            row |= compare_radius(with_distance(images, perturbations))
        rows.append(row)
    table = pd.DataFrame(rows) if rows else pd.DataFrame(columns=[*CELL, "n"])
    write_atomically(csv, table.to_csv(index=False))


if __name__ == "__main__":
    run(main)
