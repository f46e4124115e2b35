"""What a training step costs with each regularizer, as a multiple of a step without penalty."""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from plotting import DATASETS, regularizer_styles, save

from input_hessian.tables import read_table


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
        figsize=(0.75 * len(datasets) * len(names) + 1.2, 3.2),
        sharey=True,
        squeeze=False,
    )
    for axes, dataset in zip(grid[0], datasets, strict=True):
        rows = table[table["dataset"] == dataset]
        times = rows.pivot(index="round", columns="regularizer", values="milliseconds")
        ratios = times.div(times[unit], axis=0)  # within a round, neighbours slow all alike
        for x, name in enumerate(names):
            if name not in ratios:  # not trained on this dataset
                continue
            low, middle, high = ratios[name].quantile([0.25, 0.5, 0.75])
            axes.bar(x, middle, color=styles[name]["color"], alpha=0.4, width=0.6)
            if name != unit:
                error = [[middle - low], [high - middle]]
                axes.errorbar(x, middle, error, color=styles[name]["color"], capsize=3)
            axes.annotate(
                f"{middle:.1f}x",
                (x, high),
                ha="center",
                xytext=(0, 4),
                textcoords="offset points",
            )
        axes.set_xticks(range(len(names)), names, rotation=20 if len(names) > 4 else 0)
        axes.set_title(f"{DATASETS.get(dataset, dataset)} (1x = {times[unit].median():.1f} ms)")
        axes.grid(axis="x", visible=False)
        axes.margins(y=0.12)
    grid[0][0].set_ylabel("time relative to plain training")
    rounds, batch = table["round"].nunique(), table["batch_size"].iloc[0]
    figure.suptitle(
        f"Cost of one training step, batch {batch}:\nmedian and quartiles of {rounds} rounds",
        fontsize=9,
    )
    save(figure, args.output)


if __name__ == "__main__":
    main()
