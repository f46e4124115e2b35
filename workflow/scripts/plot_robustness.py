"""Robust accuracy against epsilon: a row per regularizer, a column per norm, one line per λ."""

import pandas as pd
import seaborn as sns

from input_hessian.experiment import plotting
from input_hessian.experiment.command import Input, Output, run
from input_hessian.experiment.published import read_published
from input_hessian.experiment.tables import read_table


def published_points(column: list, rows: pd.DataFrame, largest: float) -> list:
    """Draw others' numbers as hollow grey markers in every panel, one shape per entry; return them.

    Entries of one radius stand side by side around it, so that none covers another.
    """
    place = rows.groupby("epsilon").cumcount() - (rows.groupby("epsilon").transform("size") - 1) / 2
    x = rows["epsilon"] + 0.035 * largest * place
    handles = []
    for marker, at, entry in zip(plotting.MARKERS[1:], x, rows.itertuples(), strict=False):
        style = {"ls": "", "marker": marker, "ms": 5, "mfc": "none", "mec": "0.3", "zorder": 3}
        style["label"] = f"{entry.defence} ({entry.source.split(',')[0]})"
        for axes in column:
            (handle,) = axes.plot(at, entry.robust_accuracy, clip_on=False, **style)
        handles.append(handle)
    return handles


def main(groups: Input, published: Input, *, dataset: str, png: Output, pdf: Output) -> None:
    table = read_table(groups)
    table = table[(table["dataset"] == dataset) & (table["attack"] == "worst")]
    if table.empty:
        return plotting.nothing_to_draw(png, pdf)
    curves = table[["regularizer", "lam", "norm", "epsilon", "mean", "low", "high"]].copy()
    colours = plotting.by_lam(curves)
    names = [name for name in curves["regularizer"].unique() if name != "none"] or ["none"]
    plain = curves[curves["regularizer"] == "none"]  # in every panel
    curves = pd.concat(
        [curves[curves["regularizer"] != "none"], *(plain.assign(regularizer=n) for n in names)]
    )
    grid = sns.relplot(
        plotting.summary(curves),
        kind="line",
        x="epsilon",
        y="value",
        row="regularizer",
        row_order=names,
        col="norm",
        col_order=[norm for norm in plotting.NORMS if norm in set(table["norm"])],
        markers={name: "o" for name in colours["hue_order"]},
        height=1.5,
        aspect=2.2,
        facet_kws={"sharex": "col", "legend_out": False, "margin_titles": True},
        **colours,
        **plotting.SUMMARY,
    )
    grid.set_titles(row_template="{row_name}", col_template="")
    grid.set(ylim=(-2, 102), yticks=range(0, 101, 25), ylabel="Robust accuracy (%)")
    others = read_published(published)
    others = others[others["dataset"] == dataset]
    lines = plotting.legend_handles(grid)
    handles = []
    for column, norm in zip(grid.axes.T, grid.col_names, strict=True):
        column[-1].set_xlabel(f"{plotting.NORMS[norm]} radius ε (pixel units)")
        largest = table.loc[table["norm"] == norm, "epsilon"].max()
        shown = others[(others["norm"] == norm) & (others["epsilon"] <= largest)]
        handles += published_points(column, shown, largest)
    title = (
        f"{plotting.dataset_title(dataset)}: robust accuracy, worst case over all attacks of the norm\n"
        f"n = {table['images'].max()} test images, {plotting.of_seeds(table['seeds'].max())}; "
        f"band: {plotting.interval_name(table['seeds'].max())}"
        + "\nhollow: numbers published for other networks"
        * bool(handles)
    )
    plotting.save(grid.figure, [png, pdf], title, lines + handles, columns=3 if handles else 5)


if __name__ == "__main__":
    run(main)
