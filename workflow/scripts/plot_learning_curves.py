"""Learning curves: validation accuracy and mean penalty per epoch, one line per weight."""

import argparse
from pathlib import Path

from matplotlib.ticker import MaxNLocator

from input_hessian.experiment.plotting import (
    DATASETS,
    lam_colours,
    lam_legend,
    nothing_to_draw,
    panel_titles,
    panels,
    save,
)
from input_hessian.experiment.tables import read_table


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
        "accuracy": ("training\naccuracy (%)", 100),
        "validation_accuracy": ("validation\naccuracy (%)", 100),
        "penalty": ("weighted\npenalty (nats)", 1),
    }
    labels = [label for label, _ in measures.values()]
    titles = panel_titles(table)
    several = [name for name in names if "\n" not in titles[name] and name != "none"]
    shared = lam_colours(table.loc[table["regularizer"].isin(several), "lam"])
    figure, grid = panels([titles[name] for name in names], labels, (2.0, 1.35), sharex=True)
    for row, (column, (_, factor)) in zip(grid, measures.items(), strict=True):
        for axes, name in zip(row, names, strict=True):
            mine = table[table["regularizer"] == name]
            colours = shared if name in several else lam_colours(mine["lam"])
            colours = colours if name != "none" else {0: "black"}
            for lam, rows in mine.groupby("lam"):
                seeds = factor * rows.groupby("epoch")[column].agg(["mean", "min", "max"])
                marker = "o" if len(seeds) == 1 else None
                axes.plot(seeds.index, seeds["mean"], color=colours[lam], marker=marker)
                axes.fill_between(
                    seeds.index, seeds["min"], seeds["max"], color=colours[lam], alpha=0.2, lw=0
                )
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
    if several:
        lam_legend(figure, shared)
    for axes in grid[-1]:
        axes.set_xlabel("epoch")
    seeds = table["seed"].nunique()
    band = f"mean of {seeds} seeds, band: lowest to highest" if seeds > 1 else "1 seed"
    figure.suptitle(f"{DATASETS.get(args.dataset, args.dataset)} ({band})", fontsize=9)
    save(figure, args.output)


if __name__ == "__main__":
    main()
