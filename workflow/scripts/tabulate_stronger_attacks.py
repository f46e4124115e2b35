"""How much stronger attacks find on the selected networks, and whose examples break whom."""

import pandas as pd

from input_hessian.experiment.blocks import Block, to_latex, to_markdown
from input_hessian.experiment.command import Input, Output, run
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.readers import read_parquet
from input_hessian.experiment.results import robust_accuracy
from input_hessian.experiment.table_text import NORMS, dataset_title, percent, wide_by_lam
from input_hessian.experiment.tables import CELL, read_table

AT = ["dataset", "norm", "epsilon"]
SHOWN = {
    "all networks": "all networks",
    "apgd-ce": "+ APGD-CE",
    "apgd-t": "+ APGD-T",
    "fab-t": "+ FAB-T",
    "square": "+ Square",
    "transfer": "+ transfer",
}


def tabulate(outcomes: pd.DataFrame) -> pd.DataFrame:
    """Return a row per network, norm, epsilon and attack: what is left after it, and ``found``.

    ``found`` is the number of images that this attack broke and none before it.

    Args:
        outcomes: rows of run_stronger_attacks, the attacks on each network in their order.
    """
    keys = [*CELL, "norm", "epsilon"]
    tables = [
        robust_accuracy(part).assign(**dict(zip(CELL, cell, strict=True)))
        for cell, part in outcomes.groupby(CELL, sort=False)
    ]
    if not tables:
        return pd.DataFrame(columns=[*keys, "attack", "n", "robust", "found"])
    table = pd.concat(tables)
    # In the order in which they ran, not of their names.
    order = {attack: place for place, attack in enumerate(outcomes["attack"].unique())}
    table = table.sort_values("attack", key=lambda names: names.map(order), kind="stable")
    before = table.groupby(keys, sort=False)["robust"].shift()
    table["found"] = (before - table["robust"]).fillna(0).astype(int)
    return table[[*keys, "attack", "n", "robust", "robust_accuracy", "low", "high", "found"]]


def describe(table: pd.DataFrame, matrix: pd.DataFrame) -> list[Block]:
    """Return what is left after each attack, and whose examples break whom, per norm and radius."""
    if table.empty:
        return [Block(about="Every selected network diverged.")]
    blocks = []
    for (dataset, norm, epsilon), rows in table.groupby(AT, sort=False):
        title = f"{dataset_title(dataset)}, {NORMS[norm]} {epsilon:g}"
        rows = rows.assign(text=percent(rows["robust_accuracy"]))
        blocks.append(Block(title, table=wide_by_lam(rows, "attack").rename(columns=SHOWN)))
        here = matrix[(matrix[AT] == [dataset, norm, epsilon]).all(axis=1)]
        if here.empty:
            continue
        share = percent(here["fooled"] / here["examples"]).where(here["examples"] > 0, "")
        names = list(rows["regularizer"].unique())
        square = here.assign(share=share).pivot(index="source", columns="target", values="share")
        square = square.reindex(index=names, columns=names).fillna("")
        title = f"Transfer, {title}"
        blocks.append(Block(title, table=square.rename_axis("examples of").reset_index()))
    cells = table.groupby([*CELL, "norm", "epsilon"], sort=False)["robust"]
    lost = 100 * (cells.first() - cells.last()) / table["n"].max()
    most = dict(zip(lost.index.names, lost.idxmax(), strict=True))
    head = (
        f"Robust accuracy in percent of the selected networks of seed {table['seed'].max()} on "
        f"{table['n'].max()} of the attacked test images: after the attacks that all networks met, "
        "and after each stronger one, which got what was left. Last, what the adversarial examples of "
        "the other networks broke besides. They enter no comparison. "
        + (
            f"At most they found {lost.max():.1f} points ({dataset_title(most['dataset'])}, "
            f"{NORMS[most['norm']]} {most['epsilon']:g}, {most['regularizer']}). "
            if lost.max()
            else "None of them broke another image. "
        )
        + "The second table of each pair: of the examples "
        "with which APGD-CE breaks the network on the left, the percentage that break the one above, "
        "over the images that both classify correctly."
    )
    return [Block(about=head), *blocks]


def main(
    images: list[Input],
    transfer: list[Input],
    *,
    csv: Output,
    matrix: Output,
    markdown: Output,
    latex: Output,
) -> None:
    table = tabulate(pd.concat(map(read_parquet, images)))
    examples = pd.concat(map(read_table, transfer))
    write_atomically(csv, table.to_csv(index=False))
    write_atomically(matrix, examples.to_csv(index=False))
    blocks = describe(table, examples)
    write_atomically(markdown, to_markdown(blocks))
    write_atomically(latex, to_latex(blocks, "stronger-attacks"))


if __name__ == "__main__":
    run(main)
