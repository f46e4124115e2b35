"""Learning curves: accuracy and mean penalty per epoch, a row per regularizer, one line per λ."""

import seaborn as sns
from matplotlib.ticker import LogLocator, MaxNLocator

from input_hessian.experiment import plotting
from input_hessian.experiment.command import Input, Output, run
from input_hessian.experiment.tables import read_table

MEASURES = {
    "accuracy": "Training accuracy (%)",
    "validation_accuracy": "Validation accuracy (%)",
    "penalty": "Penalty term (nats)",
}


def main(curves: Input, *, dataset: str, png: Output, pdf: Output) -> None:
    table = read_table(curves)
    table = table[table["dataset"] == dataset].copy()
    if table.empty:
        return plotting.nothing_to_draw(png, pdf)
    table[["accuracy", "validation_accuracy"]] *= 100
    colours = plotting.by_lam(table)
    grid = sns.relplot(
        table.melt(["regularizer", "λ", "seed", "epoch"], list(MEASURES), "measure"),
        kind="line",
        x="epoch",
        y="value",
        row="regularizer",
        col="measure",
        errorbar=("pi", 100),  # lowest to highest seed
        marker="o" if table["epoch"].nunique() == 1 else None,
        height=1.25,
        aspect=1.8,
        facet_kws={"sharey": "col", "legend_out": False, "margin_titles": True},
        **colours,
        **plotting.BAND,
    )
    grid.set_titles(row_template="{row_name}", col_template="")
    grid.set_xlabels("Epoch")
    for axes, label in zip(grid.axes[0], MEASURES.values(), strict=True):
        axes.set_title(label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5, min_n_ticks=1))
    grid.set_ylabels("")
    # Where training ends: the first third of the epochs would squeeze the rest.
    late = table[table["epoch"] > table["epoch"].max() / 3]
    for axes in grid.axes[:, :2].flat:
        lowest = late[["accuracy", "validation_accuracy"]].min(axis=None)
        axes.set_ylim(lowest - 0.05 * (100 - lowest) - 0.1, 100.1)
    penalties = table.loc[table["penalty"] > 0, "penalty"]
    for axes in grid.axes[:, 2] if len(penalties) else []:
        axes.set_yscale("log")
        if penalties.max() < 100 * penalties.min():  # the default labels would overlap
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("")
    seeds = table["seed"].nunique()
    band = "mean, band: lowest to highest of " if seeds > 1 else ""
    title = f"{plotting.dataset_title(dataset)} ({band}{plotting.of_seeds(seeds)})"
    plotting.save(grid.figure, [png, pdf], title, plotting.legend_handles(grid), columns=5)


if __name__ == "__main__":
    run(main)
