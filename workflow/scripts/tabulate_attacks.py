"""Robust accuracy of the selected cells after each attack, down to the worst case of all."""

import pandas as pd

from input_hessian.experiment.blocks import Block, to_latex, to_markdown
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
# Columns of the Markdown table; APGD-T's record already counts what came before it.
SHOWN = {
    "fgsm": "FGSM",
    "pgd": "PGD",
    "ddn": "DDN",
    "apgd-t": "+ APGD",
    "worst": "worst case",
}


def tabulate(groups: pd.DataFrame, selection: pd.DataFrame, headline: dict) -> pd.DataFrame:
    """Return one row per selected lam, headline radius and attack: mean and interval."""
    rows = groups.merge(selection.loc[selection["selected"], KEYS], on=KEYS)
    at = [
        epsilon in headline[dataset][norm]
        for dataset, norm, epsilon in zip(
            rows["dataset"], rows["norm"], rows["epsilon"], strict=True
        )
    ]
    return rows[pd.Series(at, index=rows.index, dtype=bool)]


def describe(table: pd.DataFrame) -> list[Block]:
    """Return one table per dataset, norm and radius, after what their numbers are."""
    blocks = []
    for (dataset, norm, epsilon), rows in table.groupby(["dataset", "norm", "epsilon"], sort=False):
        rows = rows[rows["attack"].isin(SHOWN)]
        text, low, high = (percent(rows[name]) for name in ("mean", "low", "high"))
        text = text.where(rows["attack"] != "worst", with_interval(text, low, high))
        wide = wide_by_lam(rows.assign(text=text), "attack")
        wide = wide[["regularizer", "lam", *(attack for attack in SHOWN if attack in wide)]]
        title = f"{dataset_title(dataset)}, {NORMS[norm]} {epsilon:g}"
        blocks.append(Block(title, table=wide.rename(columns=SHOWN)))
    if not blocks:
        return [Block(about="Every selected cell diverged.")]
    seeds, images = table["seeds"].max(), table["images"].max()
    head = (
        f"Robust accuracy in percent of the selected cells on {images} test images, mean of up to "
        f"{seeds} seed(s), those that finished. FGSM, PGD and DDN each attack every image; a column "
        "with + attacks what everything before it left, so the last is the worst case over all "
        "attacks, with its 95% interval over images and seeds (with one seed, over the images)."
    )
    return [Block(about=head), *blocks]


def main(
    groups: Input,
    selection: Input,
    *,
    settings: Settings,
    csv: Output,
    markdown: Output,
    latex: Output,
) -> None:
    table = tabulate(read_table(groups), read_table(selection), settings["headline"])
    write_atomically(csv, table.to_csv(index=False))
    blocks = describe(table)
    write_atomically(markdown, to_markdown(blocks))
    write_atomically(latex, to_latex(blocks, "autoattack"))


if __name__ == "__main__":
    run(main)
