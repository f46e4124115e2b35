"""Gather the masking checks of every cell and of the controls into one table."""

from pathlib import Path

import pandas as pd

from input_hessian.experiment.cells import cell_folders
from input_hessian.experiment.command import Output, Settings, run
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.readers import read_json
from input_hessian.experiment.tables import CELL


def main(*, settings: Settings, csv: Output) -> None:
    grid = settings["grid"]
    controls = [Path(grid["results"]) / "control" / name for name in grid["datasets"]]
    rows = []
    for folder in [*cell_folders(grid), *controls]:
        rows += read_json(folder / "masking.json")
    table = pd.DataFrame(rows, columns=[*CELL, "check", "value", "threshold", "flagged"])
    write_atomically(csv, table.to_csv(index=False))
    for (regularizer, check), group in table.groupby(["regularizer", "check"], sort=False):
        if group["flagged"].any():
            print(f"{regularizer}: {check} flagged in {group['flagged'].sum()} of {len(group)}")


if __name__ == "__main__":
    run(main)
