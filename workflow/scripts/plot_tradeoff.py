"""Robust accuracy against the cost of a training step: one panel per dataset, norm and radius."""

import matplotlib.pyplot as plt
import pandas as pd

from input_hessian.experiment import plotting
from input_hessian.experiment.command import Input, Output, Settings, run
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
        return plotting.nothing_to_draw(png, pdf)
    times = relative_cost(pd.concat(map(read_table, cost))).set_axis(
        ["low", "mean", "high"], axis=1
    )
    finished = trained[trained["status"] == "finished"].merge(selected)
    clean = finished.groupby(["dataset", "regularizer"])["test_accuracy"].mean()
    styles = plotting.regularizer_styles(trained["regularizer"])

    def draw(data, **_):
        for (dataset, name, lam), rows in data.groupby(KEYS, sort=False):
            point = 100 * over_seeds(rows, ["lam"])
            label = f"{plotting.with_lam(name, lam)}: {100 * clean[dataset, name]:.1f}"
            time = times.loc[[(dataset, name)]].set_index(point.index)
            plotting.crosses(plt.gca(), time, point, **styles[name] | {"ls": ""}, label=label)
        plt.xlim(left=0)
        plt.margins(0.12)

    grid = plotting.headline_grid(
        attacked, settings["headline"], sharex=False, sharey=False, height=2.3, aspect=1
    )
    grid.map_dataframe(draw)
    grid.figure.set_figwidth(grid.figure.get_figwidth() + 2.2)  # room for the legends
    grid.set_axis_labels("Time of a step (1 = plain)", "Robust accuracy (%)")
    for row in grid.axes:
        last = [axes for axes in row if axes.get_visible()][-1]
        last.legend(
            loc="center left",
            bbox_to_anchor=(1.02, 0.5),
            title="regularizer: clean accuracy (%)",
        )
    title = (
        f"Robust accuracy (n = {attacked['n'].max()} test images) and training time\n"
        f"vertical bars: {plotting.interval_name(attacked['seed'].nunique())}\n"
        "horizontal bars: quartiles of the rounds"
    )
    plotting.save(grid.figure, [png, pdf], title)


if __name__ == "__main__":
    run(main)
