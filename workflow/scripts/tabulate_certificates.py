"""What is certified of the small smooth networks, beside what an attack leaves and clean accuracy."""

import pandas as pd

from input_hessian.experiment.blocks import Block, to_latex, to_markdown
from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.readers import read_parquet
from input_hessian.experiment.table_text import dataset_title, percent, wide_by_lam, with_interval

KEYS = ["dataset", "regularizer", "lam"]


def tabulate(images: pd.DataFrame, epsilons: dict[str, list[float]]) -> pd.DataFrame:
    """Return a row per network and measure: mean, lowest and highest of the seeds.

    Measures are ``clean``, the accuracy on the attacked images; ``median radius``, which half of them
    are certified to; and per radius ``certified`` and ``attacked``, the accuracies between which the
    robust accuracy lies.

    Args:
        images: rows of certify, a diverged network has none.
        epsilons: l2 radii per dataset.
    """
    rows = []
    for (*cell, _), part in images.groupby([*KEYS, "seed"], sort=False):
        radius, distance = part["certified_radius"], part["distance"]
        measured = {"clean": (distance > 0).mean(), "median radius": radius.median()}
        for epsilon in epsilons[cell[0]]:
            measured[f"certified {epsilon:g}"] = (radius >= epsilon).mean()
            measured[f"attacked {epsilon:g}"] = (distance > epsilon).mean()
        rows += [[*cell, *pair] for pair in measured.items()]
    table = pd.DataFrame(rows, columns=[*KEYS, "measure", "value"])
    groups = table.groupby([*KEYS, "measure"], sort=False)["value"]
    return groups.agg(mean="mean", low="min", high="max", seeds="size").reset_index()


def describe(table: pd.DataFrame, images: dict[str, int]) -> list[Block]:
    """Return one table per dataset, each with what its numbers are."""
    if table.empty:
        return [Block(about="Every certifiable network diverged.")]
    blocks = []
    for dataset, rows in table.groupby("dataset", sort=False):
        length, seeds = rows["measure"] == "median radius", int(rows["seeds"].max())
        text, low, high = (
            percent(rows[name]).where(~length, rows[name].map("{:.3f}".format))
            for name in ("mean", "low", "high")
        )
        text = with_interval(text, low, high) if seeds > 1 else text
        of = f", mean of {seeds} seeds, in brackets the lowest and the highest" * (seeds > 1)
        about = (
            f"Accuracy in percent of small smooth networks on {images[dataset]} test images{of}. At an l2 "
            "radius, the robust accuracy is at least the certified and at most the attacked one "
            "(DDN). Median radius: to which half of the images are certified, in pixel units."
        )
        shown = wide_by_lam(rows.assign(text=text), "measure")
        blocks.append(Block(f"{dataset_title(dataset)}, certified", about, shown))
    return blocks


def main(
    certificates: list[Input], *, settings: Settings, csv: Output, markdown: Output, latex: Output
) -> None:
    images = pd.concat(map(read_parquet, certificates))
    table = tabulate(images, settings["epsilons"])
    write_atomically(csv, table.to_csv(index=False))
    blocks = describe(table, images.groupby("dataset")["index"].nunique().to_dict())
    write_atomically(markdown, to_markdown(blocks))
    write_atomically(latex, to_latex(blocks, "certificate"))


if __name__ == "__main__":
    run(main)
