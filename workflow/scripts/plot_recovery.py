"""What each estimator sees of the true norm, against the Hessian-vector products it may spend."""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from input_hessian.experiment.plotting import DATASETS, save
from input_hessian.experiment.tables import read_table

MEASURES = {"of_mean": "mean found / mean ‖H‖", "median": "found / ‖H‖, median image"}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recovery", type=Path, nargs="+", required=True, help="one per weight")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--output", type=Path, nargs="+", required=True)
    args = parser.parse_args()
    table = pd.concat(map(read_table, args.recovery))
    table["estimator"] = table["method"] + ", " + table["start"] + " start"
    if "step_size" in table:  # ascent alone has one
        steps = table["step_size"].map(", step {:g}".format).where(table["step_size"].notna(), "")
        table["estimator"] += steps
    names = list(table["estimator"].unique())
    palette = sns.color_palette("colorblind")
    styles = {name: (palette[i % 10], "osD^vPX*"[i % 8]) for i, name in enumerate(names)}
    lams = sorted(table["lam"].unique())
    figure, grid = plt.subplots(
        len(MEASURES),
        len(lams),
        figsize=(max(2.5 * len(lams) + 0.8, 6), 5.4),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for row, (column, label) in zip(grid, MEASURES.items(), strict=True):
        for axes, lam in zip(row, lams, strict=True):
            for name in names:
                rows = table[(table["lam"] == lam) & (table["estimator"] == name)]
                rows = rows.groupby(["hvps", "step"], as_index=False)[column].mean()  # over draws
                found = rows.groupby("hvps")[column].agg(["mean", "min", "max"])
                colour, marker = styles[name]
                axes.plot(found.index, found["mean"], color=colour, marker=marker, label=name)
                axes.fill_between(
                    found.index, found["min"], found["max"], color=colour, alpha=0.15, lw=0
                )
            axes.set_xscale("log", base=2)
            axes.set_ylim(0, 1.03)
        row[0].set_ylabel(label)
    for axes, lam in zip(grid[0], lams, strict=True):
        axes.set_title(f"λ = {lam:g}")
    ticks = [1, 2, 4, 8, 16]
    for axes in grid[-1]:
        axes.set_xlabel("Hessian-vector products")
        axes.set_xticks(ticks, map(str, ticks))
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    moments = table["progress"].nunique()
    figure.suptitle(
        f"{DATASETS.get(args.dataset, args.dataset)}: fraction of the converged norm that each "
        f"estimator finds\nwhile a network trains with penalty {table['regularizer'].iloc[0]}, "
        f"weight λ (mean and range over {moments} moments)",
        fontsize=9,
    )
    save(figure, args.output)


if __name__ == "__main__":
    main()
