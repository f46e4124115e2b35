"""Make the table a reader looks at first: mean and interval over seeds."""

import pandas as pd

from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.statistics import over_seeds
from input_hessian.experiment.table_text import NORMS, percent, wide_by_lam
from input_hessian.experiment.tables import read_table

KEYS = ["dataset", "regularizer", "lam"]


def summarize(cells: pd.DataFrame, robustness: pd.DataFrame, headline: dict) -> pd.DataFrame:
    """Return clean and worst-case accuracy: mean over seeds, 95% interval and number of seeds.

    Cells that diverged count nowhere; the Markdown table names them.
    """
    cells = cells[cells["status"] == "finished"]
    columns = {"test_accuracy": "robust_accuracy", "test_low": "low", "test_high": "high"}
    measured = [cells.rename(columns=columns).assign(measure="clean")]
    worst = robustness[robustness["attack"] == "worst"]
    for dataset, radii in headline.items():
        for norm, epsilons in radii.items():
            rows = worst[
                (worst["dataset"] == dataset)
                & (worst["norm"] == norm)
                & worst["epsilon"].isin(epsilons)
            ]
            measure = [f"{NORMS[norm]} {epsilon:g}" for epsilon in rows["epsilon"]]
            measured.append(rows.assign(measure=measure))
    return over_seeds(pd.concat(measured), [*KEYS, "measure"])


def to_markdown(summary: pd.DataFrame, cells: pd.DataFrame, robustness: pd.DataFrame) -> str:
    """Return one table per dataset, each with what its numbers are."""
    blocks = []
    for dataset, rows in summary.groupby("dataset", sort=False):
        seeds = rows["seeds"].max()
        attacked = robustness.loc[robustness["dataset"] == dataset, "n"].max()
        clean = cells.loc[cells["dataset"] == dataset, "test_images"].max()
        text = percent(rows["mean"]) + " [" + percent(rows["low"]) + ", "
        text += percent(rows["high"]) + "]"
        spread = "one seed, in brackets the 95% Wilson interval of the images"
        if seeds == 2:
            spread = "mean of 2 seeds, in brackets the lower and the higher one"
        if seeds > 2:
            spread = f"mean of {seeds} seeds, in brackets its 95% interval (Student's t)"
        if seeds > 1:
            fewer = rows["seeds"] < seeds
            text[fewer] += " (" + rows.loc[fewer, "seeds"].astype(str) + " of them)"
            if (rows["seeds"] == 1).any():
                spread += "; where one seed is left, the 95% Wilson interval of its images"
            if seeds > 2 and (rows["seeds"] == 2).any():
                spread += "; where two are left, their range"
        wide = wide_by_lam(rows.assign(text=text), "measure")
        blocks.append(
            f"### {dataset}\n\n"
            f"Accuracy in percent: {spread}. Clean: all {clean} test images. Under attack: a fixed "
            f"random subset of {attacked}; an image counts if it withstands every attack of that "
            f"norm at that epsilon.\n\n{wide.to_markdown(index=False, disable_numparse=True)}\n"
        )
    diverged = cells[cells["status"] != "finished"].groupby(KEYS).size()
    for (dataset, regularizer, lam), count in diverged.items():
        blocks.append(f"{dataset}, {regularizer}, lam {lam:g}: {count} seed(s) diverged.\n")
    return "\n".join(blocks)


def main(
    cells: Input, robustness: Input, *, settings: Settings, csv: Output, markdown: Output
) -> None:
    cell_table, accuracies = read_table(cells), read_table(robustness)
    summary = summarize(cell_table, accuracies, settings["headline"])
    write_atomically(csv, summary.to_csv(index=False))
    write_atomically(markdown, to_markdown(summary, cell_table, accuracies))


if __name__ == "__main__":
    run(main)
