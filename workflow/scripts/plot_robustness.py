"""Robust accuracy against epsilon: one column per regularizer, one row per norm, one line per lam."""

import argparse
from pathlib import Path

import pandas as pd
from plotting import DATASETS, NORMS, lam_colours, nothing_to_draw, panels, save

from input_hessian.results import read_table


def curve(axes, rows: pd.DataFrame, **style) -> None:
    """Draw the mean over seeds; the band is their range, or one seed's 95% Wilson interval."""
    seeds = rows.groupby("epsilon").agg(
        mean=("robust_accuracy", "mean"),
        min=("robust_accuracy", "min") if rows["seed"].nunique() > 1 else ("low", "min"),
        max=("robust_accuracy", "max") if rows["seed"].nunique() > 1 else ("high", "max"),
    )
    axes.plot(seeds.index, 100 * seeds["mean"], marker="o", **style)
    axes.fill_between(
        seeds.index, 100 * seeds["min"], 100 * seeds["max"], color=style["color"], alpha=0.2, lw=0
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--robustness", type=Path, required=True, help="table of collect")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--output", type=Path, nargs="+", required=True)
    args = parser.parse_args()
    table = read_table(args.robustness)
    table = table[(table["dataset"] == args.dataset) & (table["attack"] == "worst")]
    if table.empty:
        return nothing_to_draw(args.output)
    plain = table[table["regularizer"] == "none"]
    names = [name for name in table["regularizer"].unique() if name != "none"] or ["none"]
    figure, grid = panels(names, ["robust accuracy (%)"] * 2, (2.4, 2.2), sharex=False)
    for row, norm in zip(grid, ("linf", "l2"), strict=True):
        for axes, name in zip(row, names, strict=True):
            curve(
                axes,
                plain[plain["norm"] == norm],
                color="black",
                ls="--",
                label="no penalty",
            )
            mine = table[(table["regularizer"] == name) & (table["norm"] == norm)]
            colours = lam_colours(mine["lam"])
            for lam, rows in mine.groupby("lam") if name != "none" else []:
                curve(axes, rows, color=colours[lam], label=f"λ = {lam:g}")
            axes.set(ylim=(-2, 102), xlabel=rf"{NORMS[norm]} radius ε (pixel units)")
    for axes in grid[0]:
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[1:], labels[1:], loc="lower left", handlelength=1.2)
    grid[1][0].legend(*[part[:1] for part in grid[1][0].get_legend_handles_labels()])
    seeds = table["seed"].nunique()
    band = "mean, band: lowest to highest" if seeds > 1 else "band: 95% Wilson interval"
    figure.suptitle(
        f"{DATASETS.get(args.dataset, args.dataset)}: worst case over all attacks of the norm\n"
        f"n = {table['n'].max()} test images, {seeds} seed{'s' * (seeds > 1)}, {band}",
        fontsize=9,
    )
    save(figure, args.output)


if __name__ == "__main__":
    main()
