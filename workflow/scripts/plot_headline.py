"""Robust accuracy against epsilon at the selected λ: a row per norm, a column per dataset."""

import pandas as pd
import seaborn as sns

from input_hessian.experiment import plotting
from input_hessian.experiment.command import Input, Output, run
from input_hessian.experiment.statistics import over_seeds
from input_hessian.experiment.tables import read_table

KEYS = ["dataset", "regularizer", "lam"]
AUTOATTACK = {"apgd-ce", "apgd-t", "fab-t", "square"}


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
        return plotting.nothing_to_draw(png, pdf)
    datasets = [name for name in choice["dataset"].unique() if name in set(curves["dataset"])]
    names = labels(curves, datasets)
    shown = [name for name in choice["regularizer"].unique() if name in names]
    grid = sns.relplot(
        plotting.summary(curves),
        kind="line",
        x="epsilon",
        y="value",
        row="norm",
        row_order=[norm for norm in plotting.NORMS if norm in set(curves["norm"])],
        col="dataset",
        col_order=datasets,
        size="regularizer",
        sizes={name: 2.6 if name == reference else 1.3 for name in shown},
        height=2.7,
        aspect=max(3.4, 5.2 / len(datasets)) / 2.7,
        facet_kws={"sharex": False, "legend_out": False},
        **plotting.by_regularizer(shown),
        **plotting.SUMMARY,
    )
    for (norm, _), axes in grid.axes_dict.items():
        axes.set_xlabel(f"{plotting.NORMS[norm]} radius ε (pixel units)")
        for line in axes.lines:
            line.set_zorder(2 + (line.get_linewidth() > 2))  # the reference above the others
    grid.set(
        title="",
        xlim=(0, None),
        ylim=(-2, 102),
        yticks=range(0, 101, 20),
        ylabel="Robust accuracy (%)",
    )
    for axes, dataset in zip(grid.axes[0], datasets, strict=True):
        axes.set_title(plotting.dataset_title(dataset), fontsize=11)
    handles = plotting.legend_handles(grid)
    for handle in handles:
        handle.set_label(names[handle.get_label()])
    chosen = "λ chosen on validation images"
    if any(" / " in name for name in names.values()):
        chosen += f" ({' / '.join(plotting.dataset_title(dataset) for dataset in datasets)})"
    seeds = curves["seeds"].max()
    band = f"mean, band: {plotting.interval_name(seeds)}" if seeds > 1 else "1 seed"
    attacks = "AutoAttack and all other" if set(table["attack"]) >= AUTOATTACK else "all"
    title = (
        f"Robust accuracy, worst case over {attacks} attacks\n"
        f"n = {table['n'].max()} test images; {band}"
    )
    plotting.save(
        grid.figure, [png, pdf], title, handles, columns=1 + len(datasets), legend_title=chosen
    )


if __name__ == "__main__":
    run(main)
