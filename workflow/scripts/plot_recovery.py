"""What each estimator finds of the true norm, against the Hessian-vector products it may spend."""

import pandas as pd
import seaborn as sns

from input_hessian.experiment import plotting
from input_hessian.experiment.command import Input, Output, run
from input_hessian.experiment.tables import read_table

MEASURES = {"of_mean": "Mean found / mean ‖H‖", "median": "Found / ‖H‖, median image"}
TICKS = [1, 2, 4, 8, 16]


def main(recovery: list[Input], *, dataset: str, png: Output, pdf: Output) -> None:
    table = pd.concat(map(read_table, recovery))
    # A penalty meets the untrained network at one step; in a mean over moments it would count as much
    # as all that the training passes through.
    table = table[table["step"] > 0]
    if table.empty:
        return plotting.nothing_to_draw(png, pdf)
    table["estimator"] = table["method"] + ", " + table["start"] + " start"
    if "step_size" in table:  # ascent alone has one
        steps = table["step_size"].map(", step {:g}".format).where(table["step_size"].notna(), "")
        table["estimator"] += steps
    keys = ["lam", "estimator", "hvps", "step"]
    moments = table.groupby(keys, sort=False, as_index=False)[list(MEASURES)].mean()  # over draws
    grid = sns.relplot(
        moments.melt(keys, list(MEASURES), "measure"),
        kind="line",
        x="hvps",
        y="value",
        row="measure",
        col="lam",
        hue="estimator",
        style="estimator",
        palette="colorblind",
        markers=True,
        dashes=False,
        errorbar=None,
        height=2.6,
        aspect=max(3, 7 / table["lam"].nunique()) / 2.6,
        facet_kws={"legend_out": False},
        **plotting.BAND,
    )
    grid.set_titles("").set_xlabels("Hessian-vector products")
    for axes, lam in zip(grid.axes[0], grid.col_names, strict=True):
        axes.set_title(f"λ = {lam:g}")
        axes.set_xscale("log", base=2)
        axes.set_xticks(TICKS, map(str, TICKS))
        axes.set_ylim(0, 1.03)
    for axes, label in zip(grid.axes[:, 0], MEASURES.values(), strict=True):
        axes.set_ylabel(label)
    title = (
        f"{plotting.dataset_title(dataset)}: share of the converged norm that each estimator finds\n"
        f"while a network trains with {table['regularizer'].iloc[0]} at λ "
        f"(mean over {table['progress'].nunique()} moments after the start)"
    )
    plotting.save(grid.figure, [png, pdf], title, plotting.legend_handles(grid), columns=3)


if __name__ == "__main__":
    run(main)
