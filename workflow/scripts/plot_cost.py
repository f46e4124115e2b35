"""What a training step costs with each regularizer, as a multiple of a step without penalty."""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
from plotting import DATASETS, regularizer_styles, save

from input_hessian.results import read_table


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=Path, required=True, help="table of collect")
    parser.add_argument("--output", type=Path, nargs="+", required=True)
    args = parser.parse_args()
    cells = read_table(args.cells)
    cells = cells[cells["milliseconds_per_step"].notna()]
    styles = regularizer_styles(cells["regularizer"])
    names = list(cells["regularizer"].unique())
    datasets = list(cells["dataset"].unique())

    figure, grid = plt.subplots(
        1, len(datasets), figsize=(2.8 * len(datasets) + 1, 2.8), sharey=True, squeeze=False
    )
    for axes, dataset in zip(grid[0], datasets, strict=True):
        here = cells[cells["dataset"] == dataset]
        plain = here.loc[here["regularizer"] == "none", "milliseconds_per_step"]
        unit = plain.median() if len(plain) else 1.0
        for x, name in enumerate(names):
            ratios = here.loc[here["regularizer"] == name, "milliseconds_per_step"] / unit
            middle = ratios.median()
            axes.bar(x, middle, color=styles[name]["color"], alpha=0.35, width=0.6)
            # One dot per cell, side by side, so that the spread is seen and not summarised.
            offsets = [x + 0.4 * (i / max(len(ratios) - 1, 1) - 0.5) for i in range(len(ratios))]
            axes.plot(offsets, ratios, ls="", marker="o", ms=3, color=styles[name]["color"])
            axes.annotate(
                f"{middle:.1f}x" if len(plain) else f"{middle:.0f} ms",
                (x, max(middle, ratios.max())),
                ha="center",
                xytext=(0, 4),
                textcoords="offset points",
            )
        axes.set_xticks(range(len(names)), names)
        axes.set_title(
            DATASETS.get(dataset, dataset) + (f" (1x = {unit:.1f} ms)" if len(plain) else "")
        )
        axes.grid(axis="x", visible=False)
        axes.margins(y=0.15)
    grid[0][0].set_ylabel("training step / plain step" if len(plain) else "training step (ms)")
    save(figure, args.output)


if __name__ == "__main__":
    main()
