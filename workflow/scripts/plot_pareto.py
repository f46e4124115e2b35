"""Clean against robust accuracy: each regularizer is a line through its λ."""

import matplotlib.pyplot as plt

from input_hessian.experiment import plotting
from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.statistics import over_seeds
from input_hessian.experiment.tables import CELL, read_table


def main(cells: Input, robustness: Input, *, settings: Settings, png: Output, pdf: Output) -> None:
    trained, attacked = read_table(cells), read_table(robustness)
    table = attacked[attacked["attack"] == "worst"].merge(
        trained[[*CELL, "test_accuracy", "test_low", "test_high"]]
    )
    if table.empty:
        return plotting.nothing_to_draw(png, pdf)
    styles = plotting.regularizer_styles(trained["regularizer"])
    lams = table.groupby("regularizer")["lam"].agg(["min", "max"])
    labels = {"none": "none"}
    for name, low, high in lams.drop("none", errors="ignore").itertuples():
        labels[name] = f"{name}, λ {low:g}" + f" to {high:g}" * (low < high)
    handles = {}

    def draw(data, **_):
        for name, rows in data.groupby("regularizer", sort=False):
            rows = rows.sort_values("lam")
            x = over_seeds(rows, ["lam"], "test_accuracy", "test_low", "test_high")
            y, style = 100 * over_seeds(rows, ["lam"]), styles[name]
            plotting.crosses(plt.gca(), 100 * x, y, **style)
            largest = 7 if name != "none" else None
            plt.plot(100 * x["mean"].iloc[-1], y["mean"].iloc[-1], ms=largest, **style)
            handles[name] = plt.Line2D([], [], label=labels[name], **style)
        plt.margins(0.12)

    grid = plotting.headline_grid(
        table, settings["headline"], sharex="row", sharey=False, height=2.3, aspect=1.1
    )
    grid.map_dataframe(draw).set_axis_labels("Clean accuracy (%)", "Robust accuracy (%)")
    title = (
        "Robust accuracy (worst case over all attacks of the norm,\n"
        f"n = {table['n'].max()} test images) against clean accuracy\n"
        f"large marker: largest λ; bars: {plotting.interval_name(table['seed'].nunique())}"
    )
    plotting.save(
        grid.figure,
        [png, pdf],
        title,
        [handles[name] for name in styles if name in handles],
        columns=3,
    )


if __name__ == "__main__":
    run(main)
