"""Clean against robust accuracy: each regularizer is a line through its weights."""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from input_hessian.experiment.plotting import (
    DATASETS,
    NORMS,
    nothing_to_draw,
    regularizer_styles,
    save,
)
from input_hessian.experiment.statistics import over_seeds
from input_hessian.experiment.tables import CELL, read_table


def mean_and_error(rows: pd.DataFrame, column: str, low: str, high: str):
    """Return the mean per weight, in percent, and the lengths of its error bar down and up."""
    table = 100 * over_seeds(rows, ["lam"], column, low, high).set_index("lam").sort_index()
    return table["mean"], [table["mean"] - table["low"], table["high"] - table["mean"]]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=Path, required=True, help="table of collect")
    parser.add_argument("--robustness", type=Path, required=True, help="table of collect")
    parser.add_argument("--headline", type=json.loads, required=True, help="radii, as JSON")
    parser.add_argument("--output", type=Path, nargs="+", required=True)
    args = parser.parse_args()
    cells = read_table(args.cells)
    robustness = read_table(args.robustness)
    table = robustness[robustness["attack"] == "worst"].merge(
        cells[[*CELL, "test_accuracy", "test_low", "test_high"]]
    )
    if table.empty:
        return nothing_to_draw(args.output)
    styles = regularizer_styles(cells["regularizer"])
    lams = table.groupby("regularizer")["lam"].agg(["min", "max"])
    labels = {"none": "none"}
    for name, low, high in lams.drop("none", errors="ignore").itertuples():
        labels[name] = f"{name}, λ {low:g}" + f" to {high:g}" * (low < high)
    columns = max(sum(len(radii) for radii in norms.values()) for norms in args.headline.values())

    figure, grid = plt.subplots(
        len(args.headline),
        columns,
        figsize=(2.2 * columns + 0.6, 2.3 * len(args.headline) + 0.7),
        sharex="row",
        squeeze=False,
    )
    for row, (dataset, norms) in zip(grid, args.headline.items(), strict=True):
        panels = [(norm, epsilon) for norm, radii in norms.items() for epsilon in radii]
        for axes, (norm, epsilon) in zip(row, panels, strict=False):
            here = table[
                (table["dataset"] == dataset)
                & (table["norm"] == norm)
                & (table["epsilon"] == epsilon)
            ]
            for name, rows in here.groupby("regularizer", sort=False):
                clean, across = mean_and_error(rows, "test_accuracy", "test_low", "test_high")
                robust, along = mean_and_error(rows, "robust_accuracy", "low", "high")
                axes.errorbar(
                    clean,
                    robust,
                    xerr=across,
                    yerr=along,
                    elinewidth=0.8,
                    label=labels[name],
                    **styles[name],
                )
                if name != "none":
                    axes.plot(clean.iloc[-1], robust.iloc[-1], markersize=7, **styles[name])
            axes.set_title(f"{DATASETS.get(dataset, dataset)}, {NORMS[norm]} ε = {epsilon:g}")
            axes.margins(0.12)
        for axes in row[len(panels) :]:
            axes.set_visible(False)
        row[0].set_ylabel("robust accuracy (%)")
    for axes in grid[-1]:
        axes.set_xlabel("clean accuracy (%)")
    # From all panels: a regularizer whose cells diverged on one dataset is missing from its row.
    entries = {}
    for axes in grid.flat:
        entries |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside upper center",
        ncols=min(columns, len(entries)),
    )
    seeds = table["seed"].nunique()
    bars = f"95% interval over {seeds} seeds, Student's t"
    if seeds == 1:
        bars = "95% Wilson interval of the images, one seed"
    figure.supxlabel(f"large marker: largest λ; bars: {bars}", fontsize=8)
    save(figure, args.output)


if __name__ == "__main__":
    main()
