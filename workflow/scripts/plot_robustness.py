"""Robust accuracy against epsilon: a row per regularizer, a column per norm, one line per λ."""

import pandas as pd
import seaborn as sns

from input_hessian.experiment.command import Input, Output, run
from input_hessian.experiment.plotting import (
    DATASETS,
    MARKERS,
    NORMS,
    SUMMARY,
    by_lam,
    interval_name,
    legend_below,
    nothing_to_draw,
    save,
    summary,
)
from input_hessian.experiment.published import read_published
from input_hessian.experiment.statistics import over_seeds
from input_hessian.experiment.tables import read_table


def published_points(column: list, rows: pd.DataFrame, largest: float) -> list:
    """Draw others' numbers as hollow grey markers in every panel, one shape per entry; return them.

    Entries of one radius stand side by side around it, so that none covers another.
    """
    place = rows.groupby("epsilon").cumcount() - (rows.groupby("epsilon").transform("size") - 1) / 2
    x = rows["epsilon"] + 0.035 * largest * place
    handles = []
    for marker, at, entry in zip(MARKERS[1:], x, rows.itertuples(), strict=False):
        style = {"ls": "", "marker": marker, "ms": 5, "mfc": "none", "mec": "0.3", "zorder": 3}
        style["label"] = f"{entry.defence} ({entry.source.split(',')[0]})"
        for axes in column:
            (handle,) = axes.plot(at, entry.robust_accuracy, clip_on=False, **style)
        handles.append(handle)
    return handles


def main(robustness: Input, published: Input, *, dataset: str, png: Output, pdf: Output) -> None:
    table = read_table(robustness)
    table = table[(table["dataset"] == dataset) & (table["attack"] == "worst")]
    if table.empty:
        return nothing_to_draw(png, pdf)
    curves = over_seeds(table, ["regularizer", "lam", "norm", "epsilon"])
    colours = by_lam(curves)
    names = [name for name in curves["regularizer"].unique() if name != "none"] or ["none"]
    plain = curves[curves["regularizer"] == "none"]  # in every panel
    curves = pd.concat(
        [curves[curves["regularizer"] != "none"], *(plain.assign(regularizer=n) for n in names)]
    )
    grid = sns.relplot(
        summary(curves),
        kind="line",
        x="epsilon",
        y="value",
        row="regularizer",
        row_order=names,
        col="norm",
        col_order=[norm for norm in NORMS if norm in set(table["norm"])],
        markers={name: "o" for name in colours["hue_order"]},
        height=1.7,
        aspect=2,
        facet_kws={"sharex": "col", "legend_out": False, "margin_titles": True},
        **colours,
        **SUMMARY,
    )
    grid.set_titles(row_template="{row_name}", col_template="")
    grid.set(ylim=(-2, 102), ylabel="Robust accuracy (%)")
    others = read_published(published)
    others = others[others["dataset"] == dataset]
    handles = []
    for column, norm in zip(grid.axes.T, grid.col_names, strict=True):
        column[-1].set_xlabel(f"{NORMS[norm]} radius ε (pixel units)")
        largest = table.loc[table["norm"] == norm, "epsilon"].max()
        shown = others[(others["norm"] == norm) & (others["epsilon"] <= largest)]
        handles += published_points(column, shown, largest)
    # Sources are long: four columns of them would be wider than the figure.
    legend_below(grid, handles, columns=3 if handles else 4)
    hollow = "; hollow: published for other networks" if handles else ""
    grid.figure.suptitle(
        f"{DATASETS.get(dataset, dataset)}: robust accuracy, worst case over all attacks of the norm"
        f"{hollow}\nn = {table['n'].max()} test images; "
        f"mean, band: {interval_name(table['seed'].nunique())}"
    )
    save(grid.figure, png, pdf)


if __name__ == "__main__":
    run(main)
