"""Robust accuracy against epsilon at the selected weights: a panel per dataset and norm."""

import argparse
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
from input_hessian.experiment.tables import read_table

KEYS = ["dataset", "regularizer", "lam"]


def selected_curves(robustness: pd.DataFrame, selection: pd.DataFrame) -> pd.DataFrame:
    """Return one row per selected weight, norm and epsilon: mean over seeds and its 95% interval.

    Worst case over all attacks.  One seed has no spread: its bounds are NaN.
    """
    chosen = selection.loc[selection["selected"], KEYS]
    rows = robustness[robustness["attack"] == "ensemble"].merge(chosen, on=KEYS)
    table = over_seeds(rows, [*KEYS, "norm", "epsilon"])
    table[["low", "high"]] = table[["low", "high"]].where(table["seeds"] > 1)
    return table.sort_values("epsilon", kind="stable", ignore_index=True)


def labels(curves: pd.DataFrame) -> dict[str, str]:
    """Return what the legend calls each regularizer: one weight per dataset, if they differ.

    In the order of the datasets; a dash where a regularizer has no curve.
    """
    datasets = list(dict.fromkeys(curves["dataset"]))
    names = {}
    for name, rows in curves.groupby("regularizer", sort=False):
        lams = rows.groupby("dataset")["lam"].first().map("{:g}".format)
        texts = [lams.get(dataset, "\N{EN DASH}") for dataset in datasets]
        weight = texts[0] if len(set(texts)) == 1 else " / ".join(texts)
        names[name] = "none" if name == "none" else f"{name}, λ = {weight}"
    return names


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--robustness", type=Path, required=True, help="table of collect")
    parser.add_argument("--selection", type=Path, required=True, help="table of select_lam")
    parser.add_argument("--reference", required=True, help="regularizer whose line is thickest")
    parser.add_argument("--output", type=Path, nargs="+", required=True)
    args = parser.parse_args()
    robustness, selection = read_table(args.robustness), read_table(args.selection)
    curves = selected_curves(robustness, selection)
    if curves.empty:
        return nothing_to_draw(args.output)
    # As in the configuration, also where the first dataset lacks one.
    order = list(dict.fromkeys(selection["dataset"]))
    curves = curves.sort_values("dataset", key=lambda s: s.map(order.index), kind="stable")
    datasets = list(dict.fromkeys(curves["dataset"]))
    styles = regularizer_styles(selection["regularizer"])
    names = labels(curves)

    figure, grid = plt.subplots(
        2,
        len(datasets),
        figsize=(max(3.5 * len(datasets), 4.5), 5.6 + 0.2 * -(-len(names) // 3)),
        sharey=True,
        squeeze=False,
    )
    handles = {}
    for row, norm in zip(grid, ("linf", "l2"), strict=True):
        for axes, dataset in zip(row, datasets, strict=True):
            here = curves[(curves["dataset"] == dataset) & (curves["norm"] == norm)]
            for name, rows in here.groupby("regularizer", sort=False):
                thick = name == args.reference
                (handles[name],) = axes.plot(
                    rows["epsilon"],
                    100 * rows["mean"],
                    lw=2.6 if thick else 1.3,
                    markersize=6 if thick else 4.5,
                    zorder=3 if thick else 2,
                    **styles[name],
                )
                if rows["low"].notna().any():
                    axes.fill_between(
                        rows["epsilon"],
                        100 * rows["low"],
                        100 * rows["high"],
                        color=styles[name]["color"],
                        alpha=0.13,
                        lw=0,
                        zorder=1,
                    )
            axes.set(xlabel=f"{NORMS[norm]} radius ε (pixel units)", ylim=(-2, 102))
            axes.set_xlim(left=0)
        row[0].set_ylabel("robust accuracy (%)")
    for axes, dataset in zip(grid[0], datasets, strict=True):
        axes.set_title(DATASETS.get(dataset, dataset), fontsize=11)
    shown = [DATASETS.get(dataset, dataset) for dataset in datasets]
    title = "λ chosen on validation images"
    if any(" / " in name for name in names.values()):
        title += f" ({' / '.join(shown)})"
    order = [name for name in dict.fromkeys(selection["regularizer"]) if name in handles]
    figure.legend(
        [handles[name] for name in order],
        [names[name] for name in order],
        loc="outside lower center",
        ncols=3 if len(datasets) > 1 else 2,
        title=title,
        title_fontsize=9,
        fontsize=9,
    )
    seeds, images = curves["seeds"].max(), robustness["n"].max()
    band = f"mean of {seeds} seeds, band: 95% interval (t)" if seeds > 1 else "1 seed"
    figure.suptitle(
        f"Accuracy that AutoAttack and all other attacks leave\nn = {images} test images, {band}",
        fontsize=10,
    )
    save(figure, args.output)


if __name__ == "__main__":
    main()
