"""Robust accuracy against epsilon at a limited loss of clean accuracy: a row per norm, a column per dataset."""

import pandas as pd
import seaborn as sns

from input_hessian.experiment import plotting
from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.tables import read_table


def main(matched: Input, *, reference: str, settings: Settings, png: Output, pdf: Output) -> None:
    table = read_table(matched)
    if table.empty:
        return plotting.nothing_to_draw(
            png, pdf, reason="nothing can be compared: plain training diverged"
        )
    # At radius 0, what is left is the clean accuracy of the attacked images.
    zero = table.drop_duplicates(["dataset", "norm", "regularizer"])
    clean = 1 - zero["attacked_error"]
    zero = zero.assign(epsilon=0.0, robust=clean, low=clean, high=clean)
    curves = pd.concat([zero, table]).rename(columns={"robust": "mean"})
    curves = curves[["dataset", "norm", "regularizer", "epsilon", "mean", "low", "high"]]
    datasets = list(table["dataset"].unique())
    shown = list(table["regularizer"].unique())
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
        axes.xaxis.set_major_formatter("{x:g}")
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
        loss = settings["max_clean_loss"][dataset]
        axes.set_title(
            f"{plotting.dataset_title(dataset)}\n(at most {loss:g} points of clean accuracy lost)",
            fontsize=10,
        )
    seeds = table["seeds"].min()
    title = (
        "Robust accuracy at a limited loss of clean accuracy, worst case over all attacks\n"
        f"n = {table['images'].max()} test images, {plotting.of_seeds(seeds)}; band: {plotting.interval_name(seeds)}"
    )
    handles = plotting.legend_handles(grid)
    plotting.save(grid.figure, [png, pdf], title, handles, columns=1 + len(datasets))


if __name__ == "__main__":
    run(main)
