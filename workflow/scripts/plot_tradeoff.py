"""Robust accuracy against the cost of a training step: one panel per dataset, norm and radius."""

import matplotlib.pyplot as plt
import pandas as pd

from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.plotting import (
    crosses,
    headline_grid,
    interval_name,
    nothing_to_draw,
    regularizer_styles,
    save,
    with_lam,
)
from input_hessian.experiment.statistics import over_seeds, relative_cost
from input_hessian.experiment.tables import read_table

KEYS = ["dataset", "regularizer", "lam"]


def main(
    selection: Input,
    cells: Input,
    robustness: Input,
    cost: list[Input],
    *,
    settings: Settings,
    png: Output,
    pdf: Output,
) -> None:
    choice, trained, attacked = map(read_table, (selection, cells, robustness))
    selected = choice.loc[choice["selected"], KEYS]
    attacked = attacked[attacked["attack"] == "ensemble"].merge(selected)
    if attacked.empty:
        return nothing_to_draw(png, pdf)
    times = relative_cost(pd.concat(map(read_table, cost))).set_axis(
        ["low", "mean", "high"], axis=1
    )
    finished = trained[trained["status"] == "finished"].merge(selected)
    clean = finished.groupby(["dataset", "regularizer"])["test_accuracy"].mean()
    styles = regularizer_styles(trained["regularizer"])

    def draw(data, **_):
        for (dataset, name, lam), rows in data.groupby(KEYS, sort=False):
            point = 100 * over_seeds(rows, ["lam"])
            label = f"{with_lam(name, lam)}: {100 * clean[dataset, name]:.1f}"
            time = times.loc[[(dataset, name)]].set_index(point.index)
            crosses(plt.gca(), time, point, **styles[name] | {"ls": ""}, label=label)
        plt.xlim(left=0)
        plt.margins(0.12)

    grid = headline_grid(
        attacked, settings["headline"], sharex=False, sharey=False, height=2.3, aspect=1
    )
    grid.map_dataframe(draw)
    grid.set_axis_labels("Time of a step (1 = plain training)", "Robust accuracy (%)")
    for row in grid.axes:
        last = [axes for axes in row if axes.get_visible()][-1]
        last.legend(
            loc="center left",
            bbox_to_anchor=(1.02, 0.5),
            title="regularizer: clean accuracy (%)",
            title_fontsize=8,
        )
    grid.figure.suptitle(
        f"Robust accuracy (n = {attacked['n'].max()} test images) and training time\n"
        f"vertical bars: {interval_name(attacked['seed'].nunique())}; "
        "horizontal bars: quartiles of the rounds"
    )
    save(grid.figure, png, pdf)


if __name__ == "__main__":
    run(main)
