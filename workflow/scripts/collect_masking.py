"""Gather the masking checks of every cell and of the controls into one table."""

import argparse
import json
from pathlib import Path

import pandas as pd

from input_hessian.experiment.cells import cell_folders
from input_hessian.experiment.errors import run
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.tables import CELL


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", type=json.loads, required=True, help="which cells, as JSON")
    parser.add_argument("--output", type=Path, required=True, help="output, CSV")
    args = parser.parse_args()
    controls = [Path(args.grid["results"]) / "control" / name for name in args.grid["datasets"]]
    rows = []
    for folder in [*cell_folders(args.grid), *controls]:
        rows += json.loads((folder / "masking.json").read_text())
    table = pd.DataFrame(rows, columns=[*CELL, "check", "value", "threshold", "flagged"])
    write_atomically(args.output, table.to_csv(index=False))
    for (regularizer, check), group in table.groupby(["regularizer", "check"], sort=False):
        if group["flagged"].any():
            print(f"{regularizer}: {check} flagged in {group['flagged'].sum()} of {len(group)}")


if __name__ == "__main__":
    run(main)
