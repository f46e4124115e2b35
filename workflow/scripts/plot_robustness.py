"""Robust accuracy against epsilon: a panel per regularizer and norm, one line per lam."""

import argparse
from pathlib import Path

import pandas as pd
from matplotlib.lines import Line2D

from input_hessian.experiment.plotting import (
    DATASETS,
    MARKERS,
    NORMS,
    lam_colours,
    lam_legend,
    nothing_to_draw,
    panel_titles,
    panels,
    save,
)
from input_hessian.experiment.published import read_published
from input_hessian.experiment.statistics import over_seeds
from input_hessian.experiment.tables import read_table

NORM_ROWS = ("linf", "l2")


def curve(axes, rows: pd.DataFrame, **style) -> None:
    """Draw the mean over seeds and its 95% interval as a band."""
    table = over_seeds(rows, ["epsilon"]).sort_values("epsilon")
    axes.plot(table["epsilon"], 100 * table["mean"], marker="o", **style)
    axes.fill_between(
        table["epsilon"],
        100 * table["low"],
        100 * table["high"],
        color=style["color"],
        alpha=0.2,
        lw=0,
    )


def published_points(row, rows: pd.DataFrame, largest: float) -> list:
    """Draw others' numbers as hollow grey markers in every panel, one shape per entry; return them.

    Entries of one radius stand side by side around it, so that none covers another.
    """
    place = rows.groupby("epsilon").cumcount() - (rows.groupby("epsilon").transform("size") - 1) / 2
    x = rows["epsilon"] + 0.035 * largest * place
    handles = []
    for marker, at, entry in zip(MARKERS[1:], x, rows.itertuples(), strict=False):
        for axes in row:
            (handle,) = axes.plot(
                at,
                entry.robust_accuracy,
                ls="",
                marker=marker,
                markersize=5,
                mfc="none",
                mec="0.3",
                zorder=3,
                label=f"{entry.defence} ({entry.source.split(',')[0]})",
            )
        handles.append(handle)
    return handles


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--robustness", type=Path, required=True, help="table of collect")
    parser.add_argument("--published", type=Path, required=True, help="others' numbers")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--output", type=Path, nargs="+", required=True)
    args = parser.parse_args()
    table = read_table(args.robustness)
    table = table[(table["dataset"] == args.dataset) & (table["attack"] == "worst")]
    if table.empty:
        return nothing_to_draw(args.output)
    plain = table[table["regularizer"] == "none"]
    names = [name for name in table["regularizer"].unique() if name != "none"] or ["none"]
    titles = panel_titles(table)
    several = [name for name in names if "\n" not in titles[name] and name != "none"]
    shared = lam_colours(table.loc[table["regularizer"].isin(several), "lam"])
    figure, grid = panels(
        [titles[name] for name in names], ["robust accuracy\n(%)"] * 2, (2.0, 1.8), sharex=False
    )
    for row, norm in zip(grid, NORM_ROWS, strict=True):
        for axes, name in zip(row, names, strict=True):
            curve(axes, plain[plain["norm"] == norm], color="black", ls="--")
            mine = table[(table["regularizer"] == name) & (table["norm"] == norm)]
            colours = shared if name in several else lam_colours(mine["lam"])
            for lam, rows in mine.groupby("lam") if name != "none" else []:
                curve(axes, rows, color=colours[lam])
            axes.set(ylim=(-2, 102), xlabel=rf"{NORMS[norm]} radius ε")

    published = read_published(args.published)
    published = published[published["dataset"] == args.dataset]
    handles = []
    for row, norm in zip(grid, NORM_ROWS, strict=True):
        attacked = table.loc[table["norm"] == norm, "epsilon"].max()
        shown = published[(published["norm"] == norm) & (published["epsilon"] <= attacked)]
        handles += published_points(row, shown, attacked)
    plain_line = Line2D([], [], color="black", ls="--", label="no penalty")
    lam_legend(figure, shared, [plain_line, *handles])
    hollow = "; hollow: published numbers of other networks" if handles else ""
    seeds = table["seed"].nunique()
    band = "mean, band: 95% interval (t)" if seeds > 1 else "band: 95% Wilson interval"
    figure.suptitle(
        f"{DATASETS.get(args.dataset, args.dataset)}: worst case over all attacks of the norm{hollow}\n"
        f"ε in pixel units, n = {table['n'].max()} test images, {seeds} seed{'s' * (seeds > 1)}, {band}",
        fontsize=9,
    )
    save(figure, args.output)


if __name__ == "__main__":
    main()
