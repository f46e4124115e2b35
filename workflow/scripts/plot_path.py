"""What the loss rises by on the way to an adversarial example: gradient, curvature, remainder."""

import matplotlib.pyplot as plt
import numpy as np

from input_hessian.experiment import plotting
from input_hessian.experiment.command import Input, Output, run
from input_hessian.experiment.tables import read_table

PARTS = {
    "by_gradient": ("gradient at the image", "#88CCEE"),
    "by_curvature": ("curvature at the image", "#CC6677"),
    "remainder": ("remainder", "#DDDDDD"),
}


def main(path: Input, *, png: Output, pdf: Output) -> None:
    table = read_table(path)
    if table.empty:
        return plotting.nothing_to_draw(
            png, pdf, reason="no image was classified correctly and broken"
        )
    means = table.groupby(["dataset", "regularizer", "lam"], sort=False)[[*PARTS, "rise"]].mean()
    datasets = list(table["dataset"].unique())
    tallest = max(len(means.loc[dataset]) for dataset in datasets)
    figure, panels = plt.subplots(
        1, len(datasets), squeeze=False, figsize=(3.6 * len(datasets), 0.24 * tallest + 0.7)
    )
    for axes, dataset in zip(panels[0], datasets, strict=True):
        rows = means.loc[dataset].reset_index()
        # Parts of one sign are stacked away from zero.
        ends = {1: np.zeros(len(rows)), -1: np.zeros(len(rows))}
        for part, (label, colour) in PARTS.items():
            values = rows[part].to_numpy()
            start = np.where(values < 0, ends[-1], ends[1])
            axes.barh(rows.index, values, left=start, color=colour, label=label, height=0.8)
            ends[1] = ends[1] + np.maximum(values, 0)
            ends[-1] = ends[-1] + np.minimum(values, 0)
        axes.plot(rows["rise"], rows.index, "k|", ms=7, mew=1.5, label="rise of the loss")
        names = rows["regularizer"].combine(rows["lam"], plotting.with_lam)
        axes.set_yticks(rows.index, names)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.axvline(0, color="0.3", lw=0.8)
        axes.grid(axis="y", visible=False)
        axes.set_axisbelow(True)
        axes.set_title(plotting.dataset_title(dataset))
        axes.set_xlabel("nats")
    handles, _ = panels[0, 0].get_legend_handles_labels()
    title = (
        f"What the loss rises by on the straight way to the smallest {plotting.NORMS['l2']} perturbation found\n"
        f"mean over up to {table['n'].max()} test images a network, {plotting.of_seeds(table['seed'].nunique())}"
    )
    plotting.save(figure, [png, pdf], title, handles)


if __name__ == "__main__":
    run(main)
