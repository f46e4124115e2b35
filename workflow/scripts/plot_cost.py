"""The time of a training step with each regularizer, as a multiple of a step without penalty."""

import pandas as pd
import seaborn as sns

from input_hessian.experiment import plotting
from input_hessian.experiment.command import Input, Output, run
from input_hessian.experiment.tables import read_table


def main(cost: list[Input], *, png: Output, pdf: Output) -> None:
    table = pd.concat(map(read_table, cost))
    names = list(table["regularizer"].unique())
    unit = "none" if "none" in names else names[0]
    plain = table[table["regularizer"] == unit]
    # Within a round: what slows the machine down for a while slows all regularizers alike.
    table = table.merge(plain, on=["dataset", "round"], suffixes=("", "_plain"))
    table["ratio"] = table["milliseconds"] / table["milliseconds_plain"]
    grid = sns.catplot(
        table,
        kind="bar",
        x="ratio",
        y="regularizer",
        col="dataset",
        hue="regularizer",
        palette={
            name: style["color"] for name, style in plotting.regularizer_styles(names).items()
        },
        alpha=0.5,
        estimator="median",
        errorbar=("pi", 50),
        capsize=0.2,
        err_kws={"color": "black", "lw": 1},
        height=0.3 * len(names) + 0.8,
        aspect=3.3 / (0.3 * len(names) + 0.8),
        legend=False,
    )
    for dataset, axes in grid.axes_dict.items():
        rows = table[table["dataset"] == dataset]
        medians = rows.groupby("regularizer")["ratio"].median()
        for name, median in medians.items():
            axes.text(
                1.02,
                names.index(name),
                f"{median:.1f}x",
                transform=axes.get_yaxis_transform(),
                va="center",
            )
        axes.set_title(
            f"{plotting.dataset_title(dataset)} (1x = {rows['milliseconds_plain'].median():.1f} ms)"
        )
        axes.grid(axis="y", visible=False)
    grid.set_axis_labels("Time relative to plain training", "")
    title = (
        f"Time of one training step, batch of {table['batch_size'].iloc[0]}:\n"
        f"median and quartiles of {table['round'].nunique()} rounds"
    )
    plotting.save(grid.figure, [png, pdf], title)


if __name__ == "__main__":
    run(main)
