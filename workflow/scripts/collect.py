"""Gather every cell's records into three tidy tables."""

import argparse
import json
from pathlib import Path

import pandas as pd

from input_hessian.experiment.cells import cell_folders, selected_folders
from input_hessian.experiment.errors import run
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.results import robust_accuracy, wilson_interval, worst_case
from input_hessian.experiment.tables import CELL


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", type=json.loads, required=True, help="which cells, as JSON")
    parser.add_argument("--cells", type=Path, required=True, help="output: one row per cell")
    parser.add_argument("--robustness", type=Path, required=True, help="output: a row per attack")
    parser.add_argument("--curves", type=Path, required=True, help="output: one row per epoch")
    args = parser.parse_args()

    cells, robustness, curves = [], [], []
    # What the further attacks on the selected cells found, by cell.
    further = dict(
        iter(
            pd.concat(
                pd.read_parquet(folder / "images.parquet") for folder in selected_folders(args.grid)
            ).groupby(CELL)
        )
    )
    for folder in cell_folders(args.grid):
        training = json.loads((folder / "training.json").read_text())
        evaluation = json.loads((folder / "evaluation.json").read_text())
        identity = {key: training[key] for key in CELL}
        training.pop("settings")
        evaluation.pop("evaluated_with")
        n = evaluation["test_images"]
        low, high = wilson_interval(round(evaluation["test_accuracy"] * n), n)
        cells.append(training | evaluation | {"test_low": low, "test_high": high})
        curves.append(pd.read_csv(folder / "curve.csv").assign(**identity))
        images = pd.read_parquet(folder / "images.parquet")
        if images.empty:  # the cell diverged: its status says so in the table of cells
            continue
        columns = ["index", "attack", "norm", "epsilon", "robust"]
        images = images[columns]
        parts = [images, worst_case(images)]
        if tuple(identity.values()) in further:
            # Kept apart from `worst`, which compares cells: these attacks ran on this one alone.
            parts += [further[tuple(identity.values())][columns]]
            parts += [worst_case(pd.concat([images, parts[-1]])).assign(attack="ensemble")]
        table = robust_accuracy(pd.concat(parts))
        robustness.append(table.assign(**identity))

    def write(tables, path):
        """Write the concatenation as CSV, cell columns first."""
        table = pd.concat(tables, ignore_index=True)
        table = table[[*CELL, *(column for column in table.columns if column not in CELL)]]
        write_atomically(path, table.to_csv(index=False))

    empty = pd.DataFrame(
        columns=[
            *CELL,
            "attack",
            "norm",
            "epsilon",
            "n",
            "robust",
            "robust_accuracy",
            "low",
            "high",
        ]
    )
    write([pd.DataFrame(cells)], args.cells)
    write(robustness or [empty], args.robustness)
    write(curves, args.curves)
    for folder in cell_folders(args.grid):
        (folder / "checkpoint.pt").unlink(missing_ok=True)


if __name__ == "__main__":
    run(main)
