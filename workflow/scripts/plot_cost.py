"""What a training step costs with each regularizer, as a multiple of a step without penalty."""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from input_hessian.experiment.plotting import DATASETS, regularizer_styles, save
from input_hessian.experiment.tables import read_table


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cost", type=Path, nargs="+", required=True, help="one per dataset")
    parser.add_argument("--output", type=Path, nargs="+", required=True)
    args = parser.parse_args()
    table = pd.concat(map(read_table, args.cost))
    names = list(table["regularizer"].unique())
    unit = "none" if "none" in names else names[0]
    styles = regularizer_styles(names)
    datasets = list(table["dataset"].unique())

    figure, grid = plt.subplots(
        1,
        len(datasets),
        figsize=(2.9 * len(datasets) + 1.4, 0.3 * len(names) + 1.2),
        sharey=True,
        squeeze=False,
    )
    for axes, dataset in zip(grid[0], datasets, strict=True):
        rows = table[table["dataset"] == dataset]
        times = rows.pivot(index="round", columns="regularizer", values="milliseconds")
        ratios = times.div(times[unit], axis=0)  # within a round, neighbours slow all alike
        for y, name in enumerate(names):
            if name not in ratios:  # not trained on this dataset
                continue
            low, middle, high = ratios[name].quantile([0.25, 0.5, 0.75])
            axes.barh(y, middle, color=styles[name]["color"], alpha=0.5, height=0.6)
            if name != unit:
                error = [[middle - low], [high - middle]]
                axes.errorbar(middle, y, xerr=error, color="black", capsize=2, lw=1)
            axes.annotate(
                f"{middle:.1f}x",
                (high, y),
                va="center",
                xytext=(5, 0),
                textcoords="offset points",
            )
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel("time relative to plain training")
        axes.set_title(f"{DATASETS.get(dataset, dataset)} (1x = {times[unit].median():.1f} ms)")
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.16)
    rounds, batch = table["round"].nunique(), table["batch_size"].iloc[0]
    figure.suptitle(
        f"Cost of one training step, batch {batch}:\nmedian and quartiles of {rounds} rounds",
        fontsize=9,
    )
    save(figure, args.output)


if __name__ == "__main__":
    main()
