"""Gather every cell's records into tidy tables."""

import pandas as pd

from input_hessian.experiment.cells import cell_folders
from input_hessian.experiment.command import Output, Settings, run
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.readers import read_csv, read_json, read_parquet
from input_hessian.experiment.results import robust_accuracy, wilson_interval, worst_case
from input_hessian.experiment.statistics import contrast
from input_hessian.experiment.tables import CELL

GROUP = ["dataset", "regularizer", "lam"]
# Columns that train.py writes; it would import PyTorch.
CURVE = ["epoch", "loss", "penalty", "accuracy", "validation_loss", "validation_accuracy"]
CURVE += ["seconds", "steps"]
GROUPED = ["attack", "norm", "epsilon", "mean", "low", "high", "images", "seeds"]


def over_images_and_seeds(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Return robust accuracy with its interval over images and seeds, per attack, norm and epsilon.

    Args:
        outcomes: rows ``index, attack, norm, epsilon, robust, seed`` of the seeds of one lam.
    """
    rows = []
    for key, part in outcomes.groupby(["attack", "norm", "epsilon"], sort=False):
        found = contrast(part.pivot(index="seed", columns="index", values="robust").to_numpy())
        rows.append([*key, found.mean, found.low, found.high, found.images, found.seeds])
    return pd.DataFrame(rows, columns=GROUPED)


def main(
    *,
    settings: Settings,
    cells: Output,
    robustness: Output,
    groups: Output,
    curves: Output,
) -> None:
    rows, accuracies, epochs = [], [], []
    outcomes: dict[tuple, list[pd.DataFrame]] = {}
    grid = settings["grid"]
    for folder in cell_folders(grid):
        training = read_json(folder / "training.json")
        evaluation = read_json(folder / "evaluation.json")
        identity = {key: training[key] for key in CELL}
        training.pop("settings")
        evaluation.pop("evaluated_with")
        n = evaluation["test_images"]
        low, high = wilson_interval(round(evaluation["test_accuracy"] * n), n)
        rows.append(training | evaluation | {"test_low": low, "test_high": high})
        epochs.append(read_csv(folder / "curve.csv", CURVE).assign(**identity))
        images = read_parquet(folder / "images.parquet")
        if images.empty:  # the cell diverged: see its status in the table of cells
            continue
        images = images[["index", "attack", "norm", "epsilon", "robust"]]
        outcome = pd.concat([images, worst_case(images)]).assign(seed=identity["seed"])
        accuracies.append(robust_accuracy(outcome).assign(**identity))
        group = tuple(value for key, value in identity.items() if key != "seed")
        outcomes.setdefault(group, []).append(outcome)

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
    over_seeds = [
        over_images_and_seeds(pd.concat(tables)).assign(**dict(zip(GROUP, group, strict=True)))
        for group, tables in outcomes.items()
    ]
    table = pd.concat(over_seeds) if over_seeds else pd.DataFrame(columns=[*GROUP, *GROUPED])
    write_atomically(groups, table[[*GROUP, *GROUPED]].to_csv(index=False))
    write([pd.DataFrame(rows)], cells)
    write(accuracies or [empty], robustness)
    # An empty table makes objects of the numbers that it is put together with.
    write([curve for curve in epochs if len(curve)] or epochs[:1], curves)
    for folder in cell_folders(grid):
        (folder / "checkpoint.pt").unlink(missing_ok=True)


if __name__ == "__main__":
    run(main)
