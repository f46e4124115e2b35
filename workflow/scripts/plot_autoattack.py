"""What each stronger attack takes away: a panel per dataset, norm and radius, a row per selected cell."""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from input_hessian.experiment.plotting import (
    DATASETS,
    NORMS,
    nothing_to_draw,
    regularizer_styles,
    save,
    weighted_name,
)
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
WORST = "ensemble"


def above_worst_case(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per selected cell and radius, and one column per attack.

    ``ensemble`` is the worst case in percent, the other columns how many points the accuracy after
    that attack lies above it: by how much an evaluation that ended there would be too optimistic.
    Attacks that did not run in a norm are NaN.

    Args:
        table: the table of tabulate_attacks.
    """
    keys = ["dataset", "norm", "epsilon", "regularizer", "lam"]
    wide = table.pivot(index=keys, columns="attack", values="mean")
    wide = wide.reindex(pd.MultiIndex.from_frame(table[keys].drop_duplicates()))
    wide = 100 * wide.reindex(columns=[*ALONE, *SEQUENCE, WORST])
    attacks = [*ALONE, *SEQUENCE]
    wide[attacks] = wide[attacks].sub(wide[WORST], axis=0)
    return wide.reset_index()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True, help="table of tabulate_attacks")
    parser.add_argument("--output", type=Path, nargs="+", required=True)
    args = parser.parse_args()
    table = read_table(args.table)
    if table.empty:
        return nothing_to_draw(args.output)
    wide = above_worst_case(table)
    styles = regularizer_styles(table["regularizer"])
    datasets = list(dict.fromkeys(wide["dataset"]))
    blocks = {
        dataset: list(rows.groupby(["norm", "epsilon"], sort=False))
        for dataset, rows in wide.groupby("dataset", sort=False)
    }
    columns = max(map(len, blocks.values()))
    tallest = [max(len(rows) for _, rows in block) for block in blocks.values()]

    figure, grid = plt.subplots(
        len(datasets),
        columns,
        figsize=(2.7 * columns + 1.9, sum(0.36 * n + 0.75 for n in tallest) + 0.7),
        squeeze=False,
        sharey="row",
        sharex=True,
        height_ratios=[n + 1 for n in tallest],
    )
    entries = {}
    largest = max(wide[[*ALONE, *SEQUENCE]].max().max(), 1)
    ticks = [tick for tick in (0, 1, 3, 10, 30, 100) if tick <= 1.3 * largest]
    for line, dataset in zip(grid, datasets, strict=True):
        for axes in line[len(blocks[dataset]) :]:
            axes.set_visible(False)
        cells = wide.loc[wide["dataset"] == dataset, ["regularizer", "lam"]].drop_duplicates()
        place = {name: y for y, name in enumerate(cells["regularizer"])}
        for axes, ((norm, epsilon), rows) in zip(line, blocks[dataset], strict=False):
            for row in rows.to_dict("records"):
                y, colour = place[row["regularizer"]], styles[row["regularizer"]]["color"]
                found = [attack for attack in ALONE | SEQUENCE if pd.notna(row[attack])]
                for attack in found:
                    label, marker = (ALONE | SEQUENCE)[attack]
                    # One below the other, as many would coincide; those that attack alone are hollow.
                    at = y + 0.62 * (list(ALONE | SEQUENCE).index(attack) / 6 - 0.5)
                    axes.plot([0, row[attack]], [at, at], color=colour, lw=0.8, alpha=0.5)
                    axes.plot(
                        row[attack],
                        at,
                        marker,
                        mec=colour,
                        mfc="white" if attack in ALONE else colour,
                        ms=4,
                        mew=0.9,
                        clip_on=False,
                        zorder=3,
                    )
                    entries[attack] = (label, marker)
                axes.text(
                    1.02,
                    y,
                    f"{row[WORST]:.1f}",
                    transform=axes.get_yaxis_transform(),
                    va="center",
                    fontsize=8,
                )
            axes.set_xscale("symlog", linthresh=1)
            axes.set_xlim(0, 1.3 * largest)
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
            axes.set_title(f"{DATASETS.get(dataset, dataset)}, {NORMS[norm]} ε = {epsilon:g}")
            axes.grid(axis="y", visible=False)
        names = [weighted_name(name, lam) for name, lam in cells.itertuples(index=False)]
        line[0].set_yticks(range(len(names)), names)
        line[0].set_ylim(len(names) - 0.4, -0.6)
    for axes in grid[-1]:
        axes.set_xlabel("points above the worst case")
    entries = {attack: entries[attack] for attack in ALONE | SEQUENCE if attack in entries}
    handles = [
        plt.Line2D([], [], ls="", marker=m, mec="0.2", mfc="white" if a in ALONE else "0.2", ms=5.5)
        for a, (_, m) in entries.items()
    ]
    figure.legend(
        handles,
        [label for label, _ in entries.values()],
        loc="outside lower center",
        ncols=4,
        title="hollow: alone; filled: after all before it",
        title_fontsize=8,
        handletextpad=0.2,
        columnspacing=1.2,
    )
    seeds, images = int(table["seeds"].max()), table["images"].max()
    figure.suptitle(
        f"What each stronger attack takes away (n = {images}, {seeds} seed{'s' * (seeds > 1)})\n"
        "right: robust accuracy in percent, worst case over all attacks",
        fontsize=9,
    )
    save(figure, args.output)


if __name__ == "__main__":
    main()
