"""Make the table a reader looks at first: mean and spread over seeds, per regularizer and lam."""

import argparse
import json
from pathlib import Path

import pandas as pd

from input_hessian.errors import run
from input_hessian.files import write_atomically
from input_hessian.results import read_table, wilson_interval

KEYS = ["dataset", "regularizer", "lam"]
NORMS = {"linf": "l∞", "l2": "l2"}


def summarize(cells: pd.DataFrame, robustness: pd.DataFrame, headline: dict) -> pd.DataFrame:
    """Return mean, standard deviation and number of seeds of clean and worst-case accuracy.

    Cells that diverged count nowhere; the Markdown table names them.
    """
    cells = cells[cells["status"] == "finished"]
    measured = [cells.assign(measure="clean", value=cells["test_accuracy"])]
    worst = robustness[robustness["attack"] == "worst"]
    for dataset, radii in headline.items():
        for norm, epsilons in radii.items():
            rows = worst[
                (worst["dataset"] == dataset)
                & (worst["norm"] == norm)
                & worst["epsilon"].isin(epsilons)
            ]
            measure = NORMS[norm] + " " + rows["epsilon"].map("{:g}".format)
            measured.append(rows.assign(measure=measure, value=rows["robust_accuracy"]))
    values = pd.concat(measured).groupby([*KEYS, "measure"], sort=False)["value"]
    return values.agg(mean="mean", std="std", seeds="count").reset_index()


def percent(values: pd.Series) -> pd.Series:
    """Format fractions as percentages with one decimal."""
    return (100 * values).map("{:.1f}".format)


def markdown(summary: pd.DataFrame, cells: pd.DataFrame, robustness: pd.DataFrame) -> str:
    """Return one table per dataset, each with what its numbers are."""
    blocks = []
    for dataset, rows in summary.groupby("dataset", sort=False):
        seeds = rows["seeds"].max()
        attacked = robustness.loc[robustness["dataset"] == dataset, "n"].max()
        clean = cells.loc[cells["dataset"] == dataset, "test_images"].max()
        if seeds > 1:
            spread = f"mean ± standard deviation over {seeds} seeds"
            text = percent(rows["mean"]) + " ± " + percent(rows["std"])
            text = text.str.replace(" ± nan", " (1 seed)")
        else:
            spread = "one seed, in brackets the 95% Wilson interval of the images"
            sizes = [int(clean if m == "clean" else attacked) for m in rows["measure"]]
            text = percent(rows["mean"]) + [
                f" [{100 * low:.1f}, {100 * high:.1f}]"
                for low, high in (
                    wilson_interval(round(accuracy * n), n)
                    for accuracy, n in zip(rows["mean"], sizes, strict=True)
                )
            ]
        wide = rows.assign(text=text).pivot_table(
            index=["regularizer", "lam"],
            columns="measure",
            values="text",
            aggfunc="first",
            sort=False,
        )
        wide = wide[rows["measure"].unique()].reset_index()
        wide["lam"] = wide["lam"].map("{:g}".format)
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


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=Path, required=True, help="table of collect")
    parser.add_argument("--robustness", type=Path, required=True, help="table of collect")
    parser.add_argument("--headline", type=json.loads, required=True, help="radii, as JSON")
    parser.add_argument("--csv", type=Path, required=True, help="output, numbers")
    parser.add_argument("--markdown", type=Path, required=True, help="output, to read")
    args = parser.parse_args()
    cells, robustness = read_table(args.cells), read_table(args.robustness)
    summary = summarize(cells, robustness, args.headline)
    write_atomically(args.csv, summary.to_csv(index=False))
    write_atomically(args.markdown, markdown(summary, cells, robustness))


if __name__ == "__main__":
    run(main)
