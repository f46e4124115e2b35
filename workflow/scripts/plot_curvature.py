"""Gradient and Hessian norms of test images: one interval per regularizer and weight."""

import argparse
import itertools
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from input_hessian.experiment.plotting import (
    DATASETS,
    nothing_to_draw,
    regularizer_styles,
    save,
    weighted_name,
)
from input_hessian.experiment.tables import read_table

MEASURES = {
    "gradient_norm": "‖g‖ (nats per pixel unit)",
    "hessian_norm": "‖H‖ (nats per squared pixel unit)",
}


def interval(axes, rows: pd.DataFrame, measure: str, height: float, colour) -> None:
    """Draw 5% to 95%, 25% to 75% and the median, each the geometric mean over seeds."""

    def quantile(name):
        return np.exp(np.log(rows[f"{measure}_{name}"]).mean())

    axes.plot([quantile("q05"), quantile("q95")], [height] * 2, color=colour, lw=1)
    axes.plot(
        [quantile("q25"), quantile("q75")],
        [height] * 2,
        color=colour,
        lw=4,
        solid_capstyle="butt",
        alpha=0.6,
    )
    axes.plot(quantile("median"), height, "o", color=colour, ms=5, mec="white", mew=0.8)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--curvature", type=Path, required=True, help="table of collect_curvature")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--output", type=Path, nargs="+", required=True)
    args = parser.parse_args()
    table = read_table(args.curvature)
    styles = regularizer_styles(table["regularizer"])  # of all datasets, as in the other figures
    table = table[table["dataset"] == args.dataset]
    if table.empty:
        return nothing_to_draw(args.output)
    cells = list(table.groupby(["regularizer", "lam"], sort=False))
    # A gap after each regularizer, so that its weights read as one group.
    names = [name for (name, _), _ in cells]
    gaps = np.cumsum([0, *(0.6 * (a != b) for a, b in itertools.pairwise(names))])
    heights = -(np.arange(len(cells)) + gaps)

    figure, grid = plt.subplots(1, 2, figsize=(7, 0.2 * (len(cells) + gaps[-1]) + 1.1), sharey=True)
    for axes, (measure, label) in zip(grid, MEASURES.items(), strict=True):
        for height, ((name, _), rows) in zip(heights, cells, strict=True):
            interval(axes, rows, measure, height, styles[name]["color"])
        axes.set(xscale="log", xlabel=label, ylim=(heights[-1] - 0.7, 0.7))
        axes.grid(axis="y", visible=False)
    plain = [weighted_name(name, lam) for (name, lam), _ in cells]
    grid[0].set_yticks(heights, plain)
    seeds = table["seed"].nunique()
    mean = f", geometric mean over {seeds} seeds" if seeds > 1 else ""
    figure.suptitle(
        f"{DATASETS.get(args.dataset, args.dataset)}: input gradient and Hessian of the loss at "
        f"n = {table['n'].max()} test images\n"
        f"dot: median image, thick: 25% to 75%, thin: 5% to 95%{mean}",
        fontsize=9,
    )
    save(figure, args.output)


if __name__ == "__main__":
    main()
