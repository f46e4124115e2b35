"""Clean against robust accuracy: each regularizer is a line through its weights."""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
from plotting import DATASETS, NORMS, regularizer_styles, save

from input_hessian.results import read_table


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=Path, required=True, help="table of collect")
    parser.add_argument("--robustness", type=Path, required=True, help="table of collect")
    parser.add_argument("--headline", type=json.loads, required=True, help="radii, as JSON")
    parser.add_argument("--output", type=Path, nargs="+", required=True)
    args = parser.parse_args()
    cells = read_table(args.cells)
    robustness = read_table(args.robustness)
    keys = ["dataset", "regularizer", "lam", "seed"]
    table = robustness[robustness["attack"] == "worst"].merge(cells[[*keys, "test_accuracy"]])
    styles = regularizer_styles(cells["regularizer"])
    columns = max(sum(len(radii) for radii in norms.values()) for norms in args.headline.values())

    figure, grid = plt.subplots(
        len(args.headline),
        columns,
        figsize=(2.2 * columns + 0.6, 2.3 * len(args.headline) + 0.7),
        sharex="row",
        squeeze=False,
    )
    for row, (dataset, norms) in zip(grid, args.headline.items(), strict=True):
        panels = [(norm, epsilon) for norm, radii in norms.items() for epsilon in radii]
        for axes, (norm, epsilon) in zip(row, panels, strict=False):
            here = table[
                (table["dataset"] == dataset)
                & (table["norm"] == norm)
                & (table["epsilon"] == epsilon)
            ]
            for order, (name, rows) in enumerate(here.groupby("regularizer", sort=False)):
                measures = ["test_accuracy", "robust_accuracy"]
                means = 100 * rows.groupby("lam")[measures].mean()
                spread = 100 * rows.groupby("lam")[measures].std()
                if rows["seed"].nunique() == 1:  # then the images' sampling error: 95% Wilson
                    by_lam = rows.set_index("lam").loc[means.index]
                    error = [means["robust_accuracy"] - 100 * by_lam["low"]]
                    error += [100 * by_lam["high"] - means["robust_accuracy"]]
                else:
                    error = spread["robust_accuracy"]
                axes.errorbar(
                    means["test_accuracy"],
                    means["robust_accuracy"],
                    xerr=spread["test_accuracy"],
                    yerr=error,
                    elinewidth=0.8,
                    label=name,
                    **styles[name],
                )
                # Only the ends are labelled: the weight grows from one to the other.
                for lam in {means.index[0], means.index[-1]} if name != "none" else ():
                    axes.annotate(
                        f"{lam:g}",
                        means.loc[lam],
                        xytext=(4, 3 if order % 2 else -8),
                        textcoords="offset points",
                        fontsize=7,
                        color=styles[name]["color"],
                    )
            axes.set_title(f"{DATASETS.get(dataset, dataset)}, {NORMS[norm]} ε = {epsilon:g}")
            axes.margins(0.12)
        for axes in row[len(panels) :]:
            axes.set_visible(False)
        row[0].set_ylabel("robust accuracy (%)")
    for axes in grid[-1]:
        axes.set_xlabel("clean accuracy (%)")
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    save(figure, args.output)


if __name__ == "__main__":
    main()
