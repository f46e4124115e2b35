"""How much stronger attacks find on the selected networks, and whose examples break whom."""

import pandas as pd

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
    before = table.groupby(keys, sort=False)["robust"].shift()
    table["found"] = (before - table["robust"]).fillna(0).astype(int)
    return table[[*keys, "attack", "n", "robust", "robust_accuracy", "low", "high", "found"]]


def to_markdown(table: pd.DataFrame, matrix: pd.DataFrame) -> str:
    """Return what is left after each attack and whose examples break whom, per norm and radius."""
    if table.empty:
        return "Every selected network diverged.\n"
    blocks = []
    for (dataset, norm, epsilon), rows in table.groupby(AT, sort=False):
        rows = rows.assign(text=percent(rows["robust_accuracy"]))
        wide = wide_by_lam(rows, "attack").rename(columns=SHOWN)
        blocks.append(
            f"### {dataset_title(dataset)}, {NORMS[norm]} {epsilon:g}\n\n"
            f"{wide.to_markdown(index=False, disable_numparse=True)}\n"
        )
        here = matrix[(matrix[AT] == [dataset, norm, epsilon]).all(axis=1)]
        if here.empty:
            continue
        share = percent(here["fooled"] / here["examples"]).where(here["examples"] > 0, "")
        names = list(rows["regularizer"].unique())
        square = here.assign(share=share).pivot(index="source", columns="target", values="share")
        square = square.reindex(index=names, columns=names).fillna("").rename_axis("examples of")
        blocks.append(f"{square.reset_index().to_markdown(index=False, disable_numparse=True)}\n")
    first = table.groupby([*CELL, *AT[1:]], sort=False)["robust"].first()
    lost = (100 * (first - table.groupby([*CELL, *AT[1:]], sort=False)["robust"].last())) / table[
        "n"
    ].max()
    most = dict(zip(lost.index.names, lost.idxmax(), strict=True))
    head = (
        f"Robust accuracy in percent of the selected networks of seed {table['seed'].max()} on "
        f"{table['n'].max()} of the attacked test images: after the attacks that all networks met, "
        "and after each stronger one, which got what was left. Last, what the adversarial examples of "
        "the other networks broke beside. They enter no comparison. At most they found "
        f"{lost.max():.1f} points ({dataset_title(most['dataset'])}, {NORMS[most['norm']]} "
        f"{most['epsilon']:g}, {most['regularizer']}). The second table of each block: of the examples "
        "with which APGD-CE breaks the network on the left, the percentage that break the one above, "
        "over the images that both classify correctly.\n\n"
    )
    return head + "\n".join(blocks)


def main(
    images: list[Input], transfer: list[Input], *, csv: Output, matrix: Output, markdown: Output
) -> None:
    table = tabulate(pd.concat(map(read_parquet, images)))
    examples = pd.concat(map(read_table, transfer))
    write_atomically(csv, table.to_csv(index=False))
    write_atomically(matrix, examples.to_csv(index=False))
    write_atomically(markdown, to_markdown(table, examples))


if __name__ == "__main__":
    run(main)
