"""Robust accuracy against the cost of a training step: one panel per dataset, norm and radius."""

import argparse
import json
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
from input_hessian.experiment.statistics import over_seeds, relative_cost
from input_hessian.experiment.tables import read_table

KEYS = ["dataset", "regularizer", "lam"]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--selection", type=Path, required=True, help="table of select")
    parser.add_argument("--cells", type=Path, required=True, help="table of collect")
    parser.add_argument("--robustness", type=Path, required=True, help="table of collect")
    parser.add_argument("--cost", type=Path, nargs="+", required=True, help="one per dataset")
    parser.add_argument("--headline", type=json.loads, required=True, help="radii, as JSON")
    parser.add_argument("--output", type=Path, nargs="+", required=True)
    args = parser.parse_args()
    selection, cells = read_table(args.selection), read_table(args.cells)
    selected = selection.loc[selection["selected"], KEYS]
    robustness = read_table(args.robustness)
    robustness = robustness[robustness["attack"] == "ensemble"].merge(selected)
    if robustness.empty:
        return nothing_to_draw(args.output)
    cost = relative_cost(pd.concat(map(read_table, args.cost)))
    finished = cells[cells["status"] == "finished"].merge(selected)
    clean = finished.groupby(["dataset", "regularizer"])["test_accuracy"].mean()
    styles = regularizer_styles(cells["regularizer"])
    columns = max(sum(len(radii) for radii in norms.values()) for norms in args.headline.values())

    figure, grid = plt.subplots(
        len(args.headline),
        columns,
        figsize=(2.1 * columns + 2.6, 2.3 * len(args.headline) + 0.6),
        squeeze=False,
    )
    for row, (dataset, norms) in zip(grid, args.headline.items(), strict=True):
        panels = [(norm, epsilon) for norm, radii in norms.items() for epsilon in radii]
        here = robustness[robustness["dataset"] == dataset]
        lams = here.groupby("regularizer", sort=False)["lam"].first()
        for axes, (norm, epsilon) in zip(row, panels, strict=False):
            rows = here[(here["norm"] == norm) & (here["epsilon"] == epsilon)]
            for point in over_seeds(rows, ["regularizer"]).itertuples():
                name = point.regularizer
                low, middle, high = cost.loc[dataset, name]
                label = f"{name}, {100 * clean[dataset, name]:.1f}"
                axes.errorbar(
                    middle,
                    100 * point.mean,
                    xerr=[[middle - low], [high - middle]],
                    yerr=[[100 * (point.mean - point.low)], [100 * (point.high - point.mean)]],
                    elinewidth=0.8,
                    label=label if name == "none" else f"{label} (λ = {lams[name]:g})",
                    **(styles[name] | {"ls": ""}),
                )
            axes.set_title(f"{DATASETS.get(dataset, dataset)}, {NORMS[norm]} ε = {epsilon:g}")
            axes.set_xlim(left=0)
            axes.margins(0.12)
        for axes in row[len(panels) :]:
            axes.set_visible(False)
        row[0].set_ylabel("robust accuracy (%)")
        row[len(panels) - 1].legend(
            loc="center left",
            bbox_to_anchor=(1.02, 0.5),
            title="regularizer, clean accuracy (%)",
            title_fontsize=8,
        )
    for axes in grid[-1]:
        axes.set_xlabel("time of a step (1 = plain)")
    seeds = robustness["seed"].nunique()
    bars = f"95% interval over {seeds} seeds (Student's t)"
    if seeds == 1:
        bars = "95% Wilson interval of the images, one seed"
    figure.supxlabel(f"vertical bars: {bars}; horizontal bars: quartiles of the rounds", fontsize=8)
    save(figure, args.output)


if __name__ == "__main__":
    main()
