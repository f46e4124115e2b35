"""Gradient and Hessian norms of test images: one box per regularizer and λ."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import gmean

from input_hessian.experiment import plotting
from input_hessian.experiment.command import Input, Output, run
from input_hessian.experiment.tables import read_table

MEASURES = {
    "gradient_norm": "‖g‖ (nats per pixel unit)",
    "hessian_norm": "‖H‖ (nats per squared pixel unit)",
}
# What matplotlib's boxes are called, and the quantile of each.
BOX = {"whislo": "q05", "q1": "q25", "med": "median", "q3": "q75", "whishi": "q95"}


def main(curvature: Input, *, dataset: str, png: Output, pdf: Output) -> None:
    table = read_table(curvature)
    styles = plotting.regularizer_styles(
        table["regularizer"]
    )  # of all datasets, as in the other figures
    table = table[table["dataset"] == dataset]
    if table.empty:
        return plotting.nothing_to_draw(png, pdf)
    cells = {key: rows for key, rows in table.groupby(["regularizer", "lam"], sort=False)}
    # A gap after each regularizer, so that its λ read as one group.
    gaps = np.cumsum([0, *(0.6 * (a[0] != b[0]) for a, b in itertools.pairwise(cells))])
    heights = -(np.arange(len(cells)) + gaps)

    figure, grid = plt.subplots(1, 2, figsize=(7, 0.2 * (len(cells) + gaps[-1]) + 0.8), sharey=True)
    for axes, (measure, label) in zip(grid, MEASURES.items(), strict=True):
        for height, ((name, lam), rows) in zip(heights, cells.items(), strict=True):
            # The geometric mean over seeds.
            box = {part: gmean(rows[f"{measure}_{q}"]) for part, q in BOX.items()}
            colour = {"color": styles[name]["color"]}
            axes.bxp(
                [box | {"label": plotting.with_lam(name, lam)}],
                positions=[height],
                orientation="horizontal",
                widths=0.6,
                showfliers=False,
                showcaps=False,
                patch_artist=True,
                boxprops={"facecolor": styles[name]["color"], "alpha": 0.6, "lw": 0},
                whiskerprops=colour,
                medianprops={"color": "black"},
            )
            mean = gmean(rows[f"{measure}_mean"])
            axes.plot(mean, height, "D", ms=3.5, mfc="white", mec="black", mew=0.8, zorder=4)
        shown = table[[f"{measure}_{q}" for q in BOX.values()]]
        # Networks that have died have zeros alone, which have no logarithm.
        scale = "log" if (shown > 0).any(axis=None) else "linear"
        axes.set(xscale=scale, xlabel=label, ylim=(heights[-1] - 0.7, 0.7))
        axes.grid(axis="y", visible=False)
    seeds = table["seed"].nunique()
    over = f"; geometric mean over {seeds} seeds" if seeds > 1 else ""
    title = (
        f"{plotting.dataset_title(dataset)}: input gradient and Hessian of the loss at "
        f"n = {table['n'].max()} test images\n"
        f"line: median image, diamond: mean, box: 25-75%, whiskers: 5-95%{over}"
    )
    plotting.save(figure, [png, pdf], title)


if __name__ == "__main__":
    run(main)
