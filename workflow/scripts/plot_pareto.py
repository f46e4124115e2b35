"""Robust accuracy against clean error: each regularizer is a line through its λ."""

import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from input_hessian.experiment import plotting
from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.table_text import dataset_title
from input_hessian.experiment.tables import better_than_guessing, read_table

GROUP = ["dataset", "regularizer", "lam"]


def main(cells: Input, groups: Input, *, settings: Settings, png: Output, pdf: Output) -> None:
    trained, attacked = read_table(cells), read_table(groups)
    finished = trained[trained["status"] == "finished"]
    finished = finished.set_index(GROUP)
    # The axis is logarithmic: no error at all is drawn as half an image.
    error = (1 - finished["test_accuracy"]).clip(lower=0.5 / finished["test_images"])
    clean = error.groupby(level=GROUP).agg(x_mean="mean", x_low="min", x_high="max")
    if attacked.empty:
        return plotting.nothing_to_draw(png, pdf)
    # Networks that learnt nothing would stretch the axis to errors of 90%.
    learnt = better_than_guessing(finished).groupby(level=GROUP, sort=False).any()
    useless = [key for key, any_seed in learnt.items() if not any_seed and key[1] != "none"]
    table = attacked[attacked["attack"] == "worst"].join(clean.drop(useless), on=GROUP, how="inner")
    styles = plotting.regularizer_styles(trained["regularizer"])
    handles = {}

    def draw(data, **_):
        axes = plt.gca()
        plain = data[data["regularizer"] == "none"]
        for name, rows in data.groupby("regularizer", sort=False):
            rows, style = 100 * rows.sort_values("lam").set_index("lam")[BOUNDS], styles[name]
            x = rows[["x_mean", "x_low", "x_high"]].set_axis(["mean", "low", "high"], axis=1)
            plotting.crosses(axes, x, rows[["mean", "low", "high"]], **style)
            if rows.index[0] > 0:  # neither plain training nor trained elsewhere
                start = 100 * plain[BOUNDS]  # every curve starts at plain training
                axes.plot(
                    [*start["x_mean"], x["mean"].iloc[0]],
                    [*start["mean"], rows["mean"].iloc[0]],
                    color=style["color"],
                    lw=0.8,
                    ls=":",
                )
                axes.plot(x["mean"].iloc[-1], rows["mean"].iloc[-1], ms=7, **style)
            handles[name] = plt.Line2D([], [], label=name, **style)
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        subs = (1, 2, 5) if high > 5 * low else (1, 1.5, 2, 3, 4, 5, 6, 8)
        axes.xaxis.set_major_locator(LogLocator(subs=subs))
        axes.xaxis.set_major_formatter(FuncFormatter("{:g}".format))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(0.08)

    grid = plotting.headline_grid(
        table, settings["headline"], sharex="row", sharey=False, height=2.3, aspect=1.1
    )
    grid.map_dataframe(draw).set_axis_labels("Clean error (%)", "Robust accuracy (%)")
    title = (
        "Robust accuracy (worst case over all attacks of the norm,\n"
        f"n = {table['images'].max()} test images) against clean error, {plotting.of_seeds(table['seeds'].max())}\n"
        "up and to the left is better; large marker: largest λ"
    )
    if useless:
        names = (f"{dataset_title(dataset)} {name} {lam:g}" for dataset, name, lam in useless)
        title += f"\nlearnt nothing, not shown: {', '.join(names)}"
    plotting.save(
        grid.figure,
        [png, pdf],
        title,
        [handles[name] for name in styles if name in handles],
        columns=3,
    )


BOUNDS = ["x_mean", "x_low", "x_high", "mean", "low", "high"]


if __name__ == "__main__":
    run(main)
