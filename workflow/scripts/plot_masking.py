"""The checks for gradient masking: what each found for every cell, and for the masked control."""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import seaborn as sns

from input_hessian.experiment.plotting import DATASETS, nothing_to_draw, save
from input_hessian.experiment.tables import read_table

TITLES = {
    "single_step": "FGSM breaks it,\nPGD does not",
    "more_steps": "twice the steps\nbreak it, PGD not",
    "black_box": "Square breaks it,\nno gradient did",
    "huge_epsilon": r"stands at $\ell_\infty$ 0.5",
    "zero_gradients": "gradient exactly\nzero",
    "pgd_gap": "APGD breaks it,\nPGD does not",
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--masking", type=Path, required=True, help="table of collect_masking")
    parser.add_argument("--output", type=Path, nargs="+", required=True)
    args = parser.parse_args()
    table = read_table(args.masking)
    if table.empty:
        return nothing_to_draw(args.output)
    rows = list(dict.fromkeys(table["regularizer"]))
    datasets = list(dict.fromkeys(table["dataset"]))
    colours = dict(zip(datasets, sns.color_palette("colorblind"), strict=False))
    figure, grid = plt.subplots(
        1, len(TITLES), figsize=(1.6 * len(TITLES) + 1, 0.28 * len(rows) + 1.6), sharey=True
    )
    for axes, (check, title) in zip(grid, TITLES.items(), strict=True):
        found = table[table["check"] == check]
        for k, dataset in enumerate(datasets):
            part = found[found["dataset"] == dataset]
            shift = 0.3 * ((k + 0.5) / len(datasets) - 0.5)
            axes.axvline(100 * part["threshold"].max(), color=colours[dataset], lw=0.8, ls=":")
            for flagged, cells in part.groupby("flagged"):
                axes.plot(
                    100 * cells["value"],
                    [rows.index(name) + shift for name in cells["regularizer"]],
                    linestyle="",
                    marker="od"[k % 2],
                    markersize=4.5,
                    color=colours[dataset],
                    markerfacecolor=colours[dataset] if flagged else "white",
                    label=None if flagged else DATASETS.get(dataset, dataset),
                    clip_on=False,
                    zorder=3,
                )
        axes.set_xscale("symlog", linthresh=0.5, linscale=0.5)
        axes.set_xlim(0, 100)
        axes.set_xticks([0, 1, 10, 100], ["0", "1", "10", "100"])
        axes.minorticks_off()
        axes.set_title(title, fontsize=8)
    grid[0].set_yticks(range(len(rows)), rows)
    grid[0].set_ylim(len(rows) - 0.5, -0.5)
    figure.supxlabel(
        "share of the images checked (%); dotted: threshold; filled: flagged", fontsize=9
    )
    figure.legend(
        *grid[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(datasets)
    )
    save(figure, args.output)


if __name__ == "__main__":
    main()
