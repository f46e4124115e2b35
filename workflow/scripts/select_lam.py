"""Select one weight per dataset and regularizer, by validation images alone."""

import argparse
import json
from pathlib import Path

import pandas as pd

from input_hessian.experiment.cells import cell_folders
from input_hessian.experiment.errors import run
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.results import select
from input_hessian.experiment.tables import CELL


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", type=json.loads, required=True, help="which cells, as JSON")
    parser.add_argument("--max-clean-loss", type=float, required=True, help="in points")
    parser.add_argument("--output", type=Path, required=True, help="output, CSV")
    args = parser.parse_args()

    rows = []
    for folder in cell_folders(args.grid):
        validation = json.loads((folder / "validation.json").read_text())
        values = [v for norm in validation["robust_accuracy"].values() for v in norm.values()]
        rows.append(
            {key: validation[key] for key in [*CELL, "status"]}
            | {
                "validation_accuracy": validation["accuracy"],
                "validation_robust_accuracy": sum(values) / len(values) if values else None,
            }
        )
    table = select(pd.DataFrame(rows), args.max_clean_loss / 100)
    write_atomically(args.output, table.to_csv(index=False))
    print(table[table["selected"]].to_string(index=False))


if __name__ == "__main__":
    run(main)
