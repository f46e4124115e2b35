"""Robust accuracy against epsilon at the selected λ: a row per norm, a column per dataset."""

import pandas as pd
import seaborn as sns

from input_hessian.experiment.command import Input, Output, run
from input_hessian.experiment.plotting import (
    DATASETS,
    NORMS,
    SUMMARY,
    by_regularizer,
    interval_name,
    legend_below,
    nothing_to_draw,
    save,
    summary,
)
from input_hessian.experiment.statistics import over_seeds
from input_hessian.experiment.tables import read_table

KEYS = ["dataset", "regularizer", "lam"]


def selected_curves(robustness: pd.DataFrame, selection: pd.DataFrame) -> pd.DataFrame:
    """Return one row per selected cell, norm and epsilon: mean over seeds and its 95% interval.

    Worst case over all attacks.  One seed has no spread: its bounds are NaN.
    """
    chosen = selection.loc[selection["selected"], KEYS]
    rows = robustness[robustness["attack"] == "ensemble"].merge(chosen, on=KEYS)
    table = over_seeds(rows, [*KEYS, "norm", "epsilon"])
    table[["low", "high"]] = table[["low", "high"]].where(table["seeds"] > 1)
    return table.sort_values("epsilon", kind="stable", ignore_index=True)


def labels(curves: pd.DataFrame, datasets: list[str]) -> dict[str, str]:
    """Return what the legend calls each regularizer: one λ per dataset, if they differ.

    In the order of the datasets; a dash where a regularizer has no curve.
    """
    names = {}
    for name, rows in curves.groupby("regularizer", sort=False):
        lams = rows.groupby("dataset")["lam"].first().map("{:g}".format)
        texts = [lams.get(dataset, "\N{EN DASH}") for dataset in datasets]
        lam = texts[0] if len(set(texts)) == 1 else " / ".join(texts)
        names[name] = "none" if name == "none" else f"{name}, λ = {lam}"
    return names


def main(robustness: Input, selection: Input, *, reference: str, png: Output, pdf: Output) -> None:
    table, choice = read_table(robustness), read_table(selection)
    curves = selected_curves(table, choice)
    if curves.empty:
        return nothing_to_draw(png, pdf)
    datasets = [name for name in choice["dataset"].unique() if name in set(curves["dataset"])]
    names = labels(curves, datasets)
    shown = [name for name in choice["regularizer"].unique() if name in names]
    grid = sns.relplot(
        summary(curves),
        kind="line",
        x="epsilon",
        y="value",
        row="norm",
        row_order=[norm for norm in NORMS if norm in set(curves["norm"])],
        col="dataset",
        col_order=datasets,
        size="regularizer",
        sizes={name: 2.6 if name == reference else 1.3 for name in shown},
        height=2.5,
        aspect=1.4,
        facet_kws={"sharex": False, "legend_out": False},
        **by_regularizer(shown),
        **SUMMARY,
    )
    for (norm, dataset), axes in grid.axes_dict.items():
        axes.set(
            title=DATASETS.get(dataset, dataset), xlabel=f"{NORMS[norm]} radius ε (pixel units)"
        )
    grid.set(ylim=(-2, 102), ylabel="Robust accuracy (%)")
    for axes in grid.axes.flat:
        axes.set_xlim(left=0)
    for text in grid.legend.texts:
        text.set_text(names[text.get_text()])
    title = "λ chosen on validation images"
    if any(" / " in name for name in names.values()):
        title += f" ({' / '.join(DATASETS.get(dataset, dataset) for dataset in datasets)})"
    legend_below(grid, columns=1 + len(datasets), title=title)
    seeds = curves["seeds"].max()
    band = f"mean, band: {interval_name(seeds)}" if seeds > 1 else "1 seed"
    grid.figure.suptitle(
        f"Robust accuracy, worst case over AutoAttack and all other attacks\n"
        f"n = {table['n'].max()} test images; {band}"
    )
    save(grid.figure, png, pdf)


if __name__ == "__main__":
    run(main)
