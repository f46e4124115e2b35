"""The radius that the quadratic model predicts against the smallest perturbation found."""

import numpy as np
import pandas as pd
import seaborn as sns

from input_hessian.experiment import plotting
from input_hessian.experiment.command import Input, Output, run
from input_hessian.experiment.readers import read_parquet
from input_hessian.experiment.results import broken_images, compare_radius, with_distance
from input_hessian.experiment.tables import read_table

TICKS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10]


def main(
    curvature: list[Input],
    perturbations: list[Input],
    table: Input,
    *,
    dataset: str,
    png: Output,
    pdf: Output,
) -> None:
    cells = [
        broken_images(with_distance(*map(read_parquet, paths)))
        for paths in zip(curvature, perturbations, strict=True)
    ]
    # The empty table of a diverged cell has no numbers, and would make texts of those of the others.
    images = pd.concat([cell for cell in cells if len(cell)] or cells[:1])
    images = images.dropna(subset="predicted_radius")
    if images.empty:
        return plotting.nothing_to_draw(
            png, pdf, reason="no image was classified correctly and broken"
        )
    # Colours as in the other figures: by the order of all regularizers.
    styles = plotting.regularizer_styles(read_table(table)["regularizer"])
    predicted, distance = images["predicted_radius"], images["distance"]
    predicted_most = predicted[(predicted > 0) & np.isfinite(predicted)].quantile([0.005, 0.995])
    # One range for both axes would hide the cloud: predictions span more decades.
    x_limits = max(distance.quantile(0.005), 1e-3) * 0.8, distance.max() * 1.25
    y_limits = (
        np.fmin(predicted_most.iloc[0], x_limits[0]),
        np.fmax(predicted_most.iloc[1], x_limits[1]) * 1.25,
    )
    ticks = [tick for tick in TICKS if x_limits[0] <= tick <= x_limits[1]]
    cells = dict(list(images.groupby(["regularizer", "lam"], sort=False)))
    columns = min(4, len(cells))
    grid = sns.relplot(
        images.assign(
            distance=distance.clip(*x_limits),
            predicted_radius=predicted.clip(*y_limits),
            cell=images["regularizer"].combine(images["lam"], plotting.with_lam),
        ),
        x="distance",
        y="predicted_radius",
        col="cell",
        col_wrap=columns,
        hue="regularizer",
        palette={name: style["color"] for name, style in styles.items()},
        s=8,
        alpha=0.35,
        linewidth=0,
        rasterized=True,
        clip_on=False,  # points at an edge stay whole
        legend=False,
        height=2.6,
        aspect=max(2.3, 5 / columns) / 2.6,
    )
    grid.set(xscale="log", yscale="log", xlim=x_limits, ylim=y_limits)
    for (cell, axes), rows in zip(grid.axes_dict.items(), cells.values(), strict=True):
        axes.axline((1, 1), (2, 2), color="0.3", lw=1, ls="--", zorder=3)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        result = compare_radius(rows)
        axes.set_title(
            f"{cell}\nbound holds: {100 * result['bound_holds']:.0f}%"
            f" (trivially: {100 * result['above_threshold']:.0f}%)\n"
            f"$\\rho$ = {result['spearman_predicted']:.2f}, n = {result['compared']}",
            fontsize=8,
        )
    grid.set_axis_labels("", "")
    grid.figure.supxlabel(f"Smallest {plotting.NORMS['l2']} perturbation found (pixel units)")
    grid.figure.supylabel("Radius predicted (pixel units)")
    title = (
        f"{plotting.dataset_title(dataset)}: radius that the quadratic model\n"
        "predicts for each test image\n(dashed: equal; below it the bound holds)"
    )
    plotting.save(grid.figure, [png, pdf], title)


if __name__ == "__main__":
    run(main)
