"""The radius that the quadratic model predicts against the smallest perturbation found."""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from input_hessian.experiment.plotting import (
    DATASETS,
    NORMS,
    nothing_to_draw,
    regularizer_styles,
    save,
    weighted_name,
)
from input_hessian.experiment.results import broken_images, compare_radius, with_distance
from input_hessian.experiment.tables import CELL, read_table

COLUMNS = 4
TICKS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--curvature", type=Path, nargs="+", required=True, help="one per cell")
    parser.add_argument("--perturbations", type=Path, nargs="+", required=True, help="one per cell")
    parser.add_argument("--table", type=Path, required=True, help="table of collect_curvature")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--output", type=Path, nargs="+", required=True)
    args = parser.parse_args()
    cells = [
        broken_images(with_distance(pd.read_parquet(curvature), pd.read_parquet(perturbations)))
        for curvature, perturbations in zip(args.curvature, args.perturbations, strict=True)
    ]
    cells = [images for images in cells if not images.empty]
    if not cells:
        return nothing_to_draw(args.output)
    # Colours as in the other figures: by the order of all regularizers.
    styles = regularizer_styles(read_table(args.table)["regularizer"])
    positive = [images.loc[images["predicted_radius"] > 0, "predicted_radius"] for images in cells]
    predicted = pd.concat(positive)
    distance = pd.concat([images["distance"] for images in cells])
    # One range for both axes would hide the cloud: predictions span more decades.
    x_limits = (max(distance.quantile(0.005), 1e-3) * 0.8, distance.max() * 1.25)
    y_limits = (
        min(predicted.quantile(0.005), x_limits[0]),
        max(predicted[np.isfinite(predicted)].quantile(0.995), x_limits[1]) * 1.25,
    )

    ticks = [tick for tick in TICKS if x_limits[0] <= tick <= x_limits[1]]
    columns = min(COLUMNS, len(cells))
    rows = -(-len(cells) // columns)
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(max(2.3 * columns, 4.5), 2.6 * rows + 0.7),
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for axes, images in zip(grid.flat, cells, strict=False):
        cell = images[CELL].iloc[0]
        result = compare_radius(images)
        axes.plot(x_limits, x_limits, color="0.3", lw=1, ls="--", zorder=3)
        axes.scatter(
            images["distance"].clip(*x_limits),
            images["predicted_radius"].clip(*y_limits),
            s=5,
            color=styles[cell["regularizer"]]["color"],
            alpha=0.35,
            lw=0,
            rasterized=True,
        )
        axes.set(xscale="log", yscale="log", xlim=x_limits, ylim=y_limits)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        name = weighted_name(cell["regularizer"], cell["lam"])
        axes.set_title(
            f"{name}\nbound holds: {100 * result['bound_holds']:.0f}%"
            f" (trivially: {100 * result['above_threshold']:.0f}%)\n"
            f"$\\rho$ = {result['spearman_predicted']:.2f}, n = {result['compared']}",
            fontsize=8,
        )
    for axes in grid.flat[len(cells) :]:
        axes.set_visible(False)
    figure.supxlabel(f"smallest {NORMS['l2']} perturbation found (pixel units)", fontsize=9)
    figure.supylabel("radius predicted (pixel units)", fontsize=9)
    figure.suptitle(
        f"{DATASETS.get(args.dataset, args.dataset)}: radius that the quadratic model\n"
        "predicts for each test image\n(dashed: equal; below it the bound holds)",
        fontsize=9,
    )
    save(figure, args.output)


if __name__ == "__main__":
    main()
