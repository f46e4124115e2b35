"""Learning curves: validation accuracy and mean penalty per epoch, one line per weight."""

import argparse
from pathlib import Path

from matplotlib.ticker import MaxNLocator
from plotting import DATASETS, lam_colours, nothing_to_draw, panels, save

from input_hessian.tables import read_table


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--curves", type=Path, required=True, help="table of collect")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--output", type=Path, nargs="+", required=True)
    args = parser.parse_args()
    table = read_table(args.curves)
    table = table[table["dataset"] == args.dataset]
    if table.empty:
        return nothing_to_draw(args.output)
    names = list(table["regularizer"].unique())
    measures = {
        "accuracy": ("training accuracy (%)", 100),
        "validation_accuracy": ("validation accuracy (%)", 100),
        "penalty": ("weighted penalty (nats)", 1),
    }
    labels = [label for label, _ in measures.values()]
    figure, grid = panels(names, labels, (2.3, 1.8), sharex=True)
    for row, (column, (_, factor)) in zip(grid, measures.items(), strict=True):
        for axes, name in zip(row, names, strict=True):
            mine = table[table["regularizer"] == name]
            colours = lam_colours(mine["lam"]) if name != "none" else {0: "black"}
            for lam, rows in mine.groupby("lam"):
                seeds = factor * rows.groupby("epoch")[column].agg(["mean", "min", "max"])
                marker = "o" if len(seeds) == 1 else None
                label_lam = f"λ = {lam:g}" if name != "none" else "no penalty"
                axes.plot(
                    seeds.index, seeds["mean"], color=colours[lam], marker=marker, label=label_lam
                )
                axes.fill_between(
                    seeds.index, seeds["min"], seeds["max"], color=colours[lam], alpha=0.2, lw=0
                )
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    for axes in grid[0]:
        axes.legend(loc="lower right", handlelength=1.2)
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    seeds = table["seed"].nunique()
    band = f"mean of {seeds} seeds, band: lowest to highest" if seeds > 1 else "1 seed"
    figure.suptitle(f"{DATASETS.get(args.dataset, args.dataset)} ({band})", fontsize=9)
    save(figure, args.output)


if __name__ == "__main__":
    main()
