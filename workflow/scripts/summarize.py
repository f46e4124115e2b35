"""Make the table a reader looks at first: clean and worst-case accuracy of every regularizer and lam."""

import pandas as pd

from input_hessian.experiment.blocks import Block, to_latex, to_markdown
from input_hessian.experiment.cells import imported
from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.table_text import (
    NORMS,
    dataset_title,
    percent,
    wide_by_lam,
    with_interval,
)
from input_hessian.experiment.tables import read_table

KEYS = ["dataset", "regularizer", "lam"]


def summarize(cells: pd.DataFrame, groups: pd.DataFrame, headline: dict) -> pd.DataFrame:
    """Return clean and worst-case accuracy: mean over seeds, an interval, and the number of seeds.

    That of the clean accuracy is the range of the seeds, that of the worst case its 95% interval over
    images and seeds.  Cells that diverged count nowhere; the Markdown table names them.
    """
    finished = cells[cells["status"] == "finished"].groupby(KEYS, sort=False)["test_accuracy"]
    clean = finished.agg(mean="mean", low="min", high="max", seeds="size").reset_index()
    measured = [clean.assign(measure="clean")]
    worst = groups[groups["attack"] == "worst"]
    for dataset, radii in headline.items():
        for norm, epsilons in radii.items():
            rows = worst[
                (worst["dataset"] == dataset)
                & (worst["norm"] == norm)
                & worst["epsilon"].isin(epsilons)
            ]
            measure = [f"{NORMS[norm]} {epsilon:g}" for epsilon in rows["epsilon"]]
            measured.append(rows.assign(measure=measure))
    table = pd.concat(measured, ignore_index=True)
    return table[[*KEYS, "measure", "mean", "low", "high", "seeds"]]


def describe(summary: pd.DataFrame, cells: pd.DataFrame, groups: pd.DataFrame) -> list[Block]:
    """Return one table per dataset, each with what its numbers are."""
    blocks = []
    for dataset, rows in summary.groupby("dataset", sort=False):
        seeds = int(rows["seeds"].max())
        attacked = groups.loc[groups["dataset"] == dataset, "images"].max()
        clean = cells.loc[cells["dataset"] == dataset, "test_images"].max()
        text = with_interval(*(percent(rows[name]) for name in ("mean", "low", "high")))
        alone = (rows["measure"] == "clean") & (rows["seeds"] == 1)
        text[alone] = percent(rows["mean"])[alone]
        fewer = (rows["seeds"] < seeds) & ~imported(rows)
        text[fewer] += " (" + rows.loc[fewer, "seeds"].astype(str) + " of them)"
        over = "images and seeds" if seeds > 1 else "images"
        about = (
            f"Accuracy in percent, mean of {seeds} seed{'s' * (seeds > 1)}. Clean: all {clean} test "
            f"images{', in brackets the lowest and the highest seed' * (seeds > 1)}. Under attack: a fixed "
            f"random subset of {attacked}; an image counts if it withstands every attack of that "
            f"norm at that epsilon; in brackets the 95% interval over {over}."
        )
        blocks.append(
            Block(dataset_title(dataset), about, wide_by_lam(rows.assign(text=text), "measure"))
        )
    for name in cells.loc[imported(cells), "regularizer"].unique():
        blocks.append(Block(about=f"{name}: one network, trained elsewhere."))
    diverged = cells[cells["status"] != "finished"].groupby(KEYS).size()
    for (dataset, regularizer, lam), count in diverged.items():
        blocks.append(
            Block(about=f"{dataset}, {regularizer}, lam {lam:g}: {count} seed(s) diverged.")
        )
    return blocks


def main(
    cells: Input,
    groups: Input,
    *,
    settings: Settings,
    csv: Output,
    markdown: Output,
    latex: Output,
) -> None:
    cell_table, accuracies = read_table(cells), read_table(groups)
    summary = summarize(cell_table, accuracies, settings["headline"])
    write_atomically(csv, summary.to_csv(index=False))
    blocks = describe(summary, cell_table, accuracies)
    write_atomically(markdown, to_markdown(blocks))
    write_atomically(latex, to_latex(blocks, "summary"))


if __name__ == "__main__":
    run(main)
