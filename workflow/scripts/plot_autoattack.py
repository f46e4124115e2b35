"""What each attack overlooks: a panel per dataset, norm and radius, a row per selected cell."""

import matplotlib.pyplot as plt
import pandas as pd

from input_hessian.experiment import plotting
from input_hessian.experiment.command import Input, Output, run
from input_hessian.experiment.tables import read_table

# Each of these attacks every image, whatever the others found ...
ALONE = {"fgsm": ("FGSM", "o"), "pgd": ("PGD", "s"), "ddn": ("DDN", "D")}
# ... and each of these what everything before it left: its accuracy counts the earlier ones too.
SEQUENCE = {
    "apgd-ce": ("+ APGD-CE", "^"),
    "apgd-t": ("+ APGD-T", "v"),
    "fab-t": ("+ FAB-T", "P"),
    "square": ("+ Square", "X"),
}
ATTACKS = ALONE | SEQUENCE
WORST = "worst"


def above_worst_case(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per selected cell and radius, and one column per attack.

    ``worst`` is the worst case in percent, the other columns how many points the accuracy after
    that attack lies above it: by how much an evaluation that ended there would be too optimistic.
    Attacks that did not run in a norm are NaN.

    Args:
        table: the table of tabulate_attacks.
    """
    keys = ["dataset", "norm", "epsilon", "regularizer", "lam"]
    wide = table.pivot(index=keys, columns="attack", values="mean")
    wide = wide.reindex(pd.MultiIndex.from_frame(table[keys].drop_duplicates()))
    wide = 100 * wide.reindex(columns=[*ATTACKS, WORST])
    wide[list(ATTACKS)] = wide[list(ATTACKS)].sub(wide[WORST], axis=0)
    return wide.reset_index()


def main(table: Input, *, png: Output, pdf: Output) -> None:
    accuracies = read_table(table)
    if accuracies.empty:
        return plotting.nothing_to_draw(png, pdf)
    wide = above_worst_case(accuracies)
    styles = plotting.regularizer_styles(wide["regularizer"])
    headline = {
        dataset: {
            norm: list(rows.loc[rows["norm"] == norm, "epsilon"].unique())
            for norm in plotting.NORMS
        }
        for dataset, rows in wide.groupby("dataset", sort=False)
    }
    # The cells of a dataset from top to bottom.
    cells = wide[["dataset", "regularizer", "lam"]].drop_duplicates()
    wide = wide.merge(cells.assign(y=cells.groupby("dataset").cumcount()))
    tallest = [int((cells["dataset"] == dataset).sum()) for dataset in headline]
    largest = max(wide[list(ATTACKS)].max().max(), 1)
    ticks = [tick for tick in (0, 1, 3, 10, 30, 100) if tick <= 1.3 * largest]
    shown = [attack for attack in ATTACKS if wide[attack].notna().any()]
    height = (sum(0.36 * n + 0.85 for n in tallest)) / len(headline)

    def draw(data, **_):
        axes = plt.gca()
        for place, (attack, (_, marker)) in enumerate(ATTACKS.items()):
            rows = data[data[attack].notna()]
            # One below the other, as many would coincide; those that attack alone are hollow.
            y = rows["y"] + 0.62 * (place / (len(ATTACKS) - 1) - 0.5)
            colours = [styles[name]["color"] for name in rows["regularizer"]]
            axes.hlines(y, 0, rows[attack], colours, lw=0.8, alpha=0.5)
            axes.scatter(
                rows[attack],
                y,
                s=16,
                marker=marker,
                color="white" if attack in ALONE else colours,
                edgecolors=colours,
                lw=0.9,
                clip_on=False,
                zorder=3,
            )
        for y, worst in zip(data["y"], data[WORST], strict=True):
            axes.text(1.02, y, f"{worst:.1f}", transform=axes.get_yaxis_transform(), va="center")
        here = data.drop_duplicates("y").sort_values("y")
        names = here["regularizer"].combine(here["lam"], plotting.with_lam)
        axes.set_yticks(here["y"], names)
        axes.set_ylim(here["y"].max() + 0.6, -0.6)
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(0, 1.3 * largest)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.grid(axis="y", visible=False)

    grid = plotting.headline_grid(
        wide,
        headline,
        sharey="row",
        height=height,
        aspect=3 / height,
        gridspec_kws={"height_ratios": [n + 1 for n in tallest]},
    )
    grid.map_dataframe(draw).set_axis_labels("Points above the worst case", "")
    handles = []
    for attack in shown:
        (label, marker), inside = ATTACKS[attack], "white" if attack in ALONE else "0.2"
        style = {"ls": "", "ms": 5.5, "mec": "0.2", "mfc": inside}
        handles.append(plt.Line2D([], [], marker=marker, label=label, **style))
    title = (
        f"What each attack overlooks (n = {accuracies['images'].max()} test images, "
        f"{plotting.of_seeds(accuracies['seeds'].max())})\n"
        "right: robust accuracy in percent, worst case over all attacks"
    )
    plotting.save(
        grid.figure,
        [png, pdf],
        title,
        handles,
        legend_title="hollow: alone; filled: after all before it",
    )


if __name__ == "__main__":
    run(main)
