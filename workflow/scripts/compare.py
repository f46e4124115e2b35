"""Compare a reference regularizer with every other, on the same test images."""

import dataclasses
from pathlib import Path

import pandas as pd

from input_hessian.experiment.checksums import verified
from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.errors import UserError
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.results import worst_case
from input_hessian.experiment.statistics import Comparison, compare_robustness, holm
from input_hessian.experiment.table_text import NORMS, percent
from input_hessian.experiment.tables import read_table

LARGEST_GAP = 0.005  # of validation accuracies that still count as matched
ROUNDING = 1e-9
COLUMNS = ["dataset", "norm", "epsilon", "reference", "reference_lam", "regularizer", "lam"]
COLUMNS += ["choice", "validation_gap", "matched", "attacks", "clean_first", "clean_second"]
COLUMNS += ["robust_first", "robust_second"]
COLUMNS += [field.name for field in dataclasses.fields(Comparison)]


def choose(selection: pd.DataFrame, reference: str) -> list[dict]:
    """Return which lam are compared; only validation columns are looked at.

    - ``matched``: every lam of another regularizer meets, of the reference's lam within
      ``LARGEST_GAP`` of its clean accuracy, the one of the highest robust accuracy.
    - ``closest``: a regularizer without such a pair is compared at its closest clean accuracies.
    - ``selected``: the selected lam of the two, whatever their clean accuracies.

    Args:
        selection: the table of select, for one dataset.
        reference: name of the reference regularizer.
    """
    selection = selection.dropna(subset=["validation_accuracy"])  # else every seed diverged
    ours = selection[selection["regularizer"] == reference]
    if ours.empty:
        return []
    pairs = []
    for name, rows in selection[selection["regularizer"] != reference].groupby(
        "regularizer", sort=False
    ):
        every = ours.merge(rows, how="cross", suffixes=("", "_other"))
        every["gap"] = every["validation_accuracy_other"] - every["validation_accuracy"]
        matched = every[every["gap"].abs() <= LARGEST_GAP + ROUNDING].sort_values(
            "validation_robust_accuracy", ascending=False, kind="stable"
        )
        choices = {"selected": every[every["selected"] & every["selected_other"]]}
        if matched.empty:
            choices["closest"] = every.loc[[every["gap"].abs().idxmin()]]
        else:
            choices["matched"] = matched.drop_duplicates("lam_other").sort_index()
        reasons = {}
        for choice, chosen in choices.items():
            for index in chosen.index:
                reasons.setdefault(index, []).append(choice)
        pairs += [
            {
                "reference": reference,
                "reference_lam": every.at[index, "lam"],
                "regularizer": name,
                "lam": every.at[index, "lam_other"],
                "choice": " and ".join(words),
                "validation_gap": every.at[index, "gap"],
                "matched": index in matched.index,
            }
            for index, words in reasons.items()
        ]
    return pairs


def attacked(results: Path, cells: pd.DataFrame) -> pd.DataFrame:
    """Return what every attack did to every image, for all seeds of one lam."""
    tables = []
    for cell in cells.itertuples():
        folder = f"{cell.dataset}/{cell.regularizer}/lam~{cell.lam:g}/seed~{cell.seed}"
        images = pd.read_parquet(verified(results / folder / "images.parquet"))
        images = images[["index", "attack", "norm", "epsilon", "robust"]]
        tables.append(images.assign(seed=cell.seed))
    return pd.concat(tables)


def withstood(images: pd.DataFrame, attacks: list[str]) -> dict[float, pd.DataFrame]:
    """Return per epsilon a table ``[seeds, images]``: robust against all of these attacks."""
    images = images[images["attack"].isin(attacks)]
    worst = pd.concat(
        worst_case(rows.drop(columns="seed")).assign(seed=seed)
        for seed, rows in images.groupby("seed")
    )
    return {
        epsilon: rows.pivot(index="seed", columns="index", values="robust")
        for epsilon, rows in worst.groupby("epsilon")
    }


def compare(selection: pd.DataFrame, cells: pd.DataFrame, settings: dict) -> pd.DataFrame:
    """Return one row per dataset, headline radius and comparison, the reference first in each pair.

    Both sides are judged by the attacks that both underwent: selected cells may have met more.
    P-values are adjusted among all rows of a dataset, the table that a reader sees at once.
    """
    cells = cells[cells["status"] == "finished"]
    rows = []
    for dataset, headline in settings["headline"].items():
        here = cells[cells["dataset"] == dataset]
        pairs = choose(selection[selection["dataset"] == dataset], settings["reference"])
        clean, images = {}, {}
        for name, lam in {key for pair in pairs for key in sides(pair)}:
            group = here[(here["regularizer"] == name) & (here["lam"] == lam)]
            clean[name, lam] = group["test_accuracy"].mean()
            images[name, lam] = attacked(Path(settings["grid"]["results"]), group)
        for norm, epsilons in headline.items():
            block = []
            for pair in pairs:
                first, second = sides(pair)
                both = [images[key][images[key]["norm"] == norm] for key in (first, second)]
                attacks = sorted(set(both[0]["attack"]) & set(both[1]["attack"]))
                if not attacks:  # the configuration has none of this norm
                    continue
                robust = [withstood(part, attacks) for part in both]
                for epsilon in epsilons:
                    ours, theirs = (tables[epsilon] for tables in robust)
                    if not ours.columns.equals(theirs.columns):
                        raise UserError(
                            f"{dataset}: {first} and {second} were attacked on different images, "
                            "expected the same; remove their images.parquet to attack both again"
                        )
                    outcome = compare_robustness(ours.to_numpy(bool), theirs.to_numpy(bool))
                    block.append(
                        {"dataset": dataset, "norm": norm, "epsilon": epsilon}
                        | pair
                        | {
                            "attacks": " ".join(attacks),
                            "clean_first": clean[first],
                            "clean_second": clean[second],
                            "robust_first": ours.to_numpy(float).mean(),
                            "robust_second": theirs.to_numpy(float).mean(),
                        }
                        | dataclasses.asdict(outcome)
                    )
            rows += sorted(block, key=lambda row: (row["epsilon"], -row["robust_second"]))
    table = pd.DataFrame(rows, columns=COLUMNS)
    table["p_holm"] = table.groupby("dataset")["p_value"].transform(holm)
    return table


def sides(pair: dict) -> list[tuple[str, float]]:
    """Return regularizer and lam of the reference and of what it is compared with."""
    return [(pair["reference"], pair["reference_lam"]), (pair["regularizer"], pair["lam"])]


def to_markdown(table: pd.DataFrame) -> str:
    """Return one table per dataset, each with what its numbers are."""
    blocks = []
    for dataset, rows in table.groupby("dataset", sort=False):
        name, seeds, n = rows[["reference", "seeds_first", "images"]].iloc[0]
        sign = rows["difference"].map(lambda difference: "+" * (difference > 0))
        difference = sign + percent(rows["difference"])
        difference += " [" + percent(rows["low"]) + ", " + percent(rows["high"]) + "]"
        shown = pd.DataFrame(
            {
                "attack": rows["norm"].map(NORMS) + " " + rows["epsilon"].map("{:g}".format),
                "regularizer": rows["regularizer"],
                "lam": rows["lam"].map("{:g}".format),
                f"lam, {name}": rows["reference_lam"].map("{:g}".format),
                "choice": rows["choice"].where(rows["matched"], rows["choice"] + " †"),
                "seeds": rows["seeds_second"],
                "clean": percent(rows["clean_second"]),
                f"clean, {name}": percent(rows["clean_first"]),
                "robust": percent(rows["robust_second"]),
                f"robust, {name}": percent(rows["robust_first"]),
                f"{name} minus other": difference.where(
                    rows["p_holm"] >= 0.05, "**" + difference + "**"
                ),
                "p (Holm)": rows["p_holm"].map(lambda p: "< 0.001" if p < 0.001 else f"{p:.3f}"),
                "odds ratio": rows["odds_ratio"].map("{:.2f}".format),
            }
        )
        sources = f"the {n} images and over the seeds (crossed random effects, Student's t)"
        if seeds == 1 or (rows["seeds_second"] == 1).any():
            sources += (
                "; with one seed on either side, over the images alone: the statement is then "
                "about these networks, and with one on both sides p is that of McNemar's exact test"
            )
        blocks.append(
            f"### {dataset}: {name} against the others\n\n"
            f"Robust: against every attack that both underwent. {name}: {seeds} "
            f"seed{'' if seeds == 1 else 's'}. Accuracies "
            f"in percent, differences in points with their 95% interval over {sources}. p is "
            f"adjusted by Holm's method over the {len(rows)} comparisons of this table; bold: below "
            f"0.05. Odds ratio: images that only {name} withstands per image that only the other "
            f"does. *matched*: a lam of the other, and of the lam of {name} within "
            f"{100 * LARGEST_GAP:g} points of its clean validation accuracy the one of the highest "
            "robust validation accuracy; *closest*: where there is none, the two of the closest clean "
            "validation accuracies; *selected*: both at the lam chosen by robust validation accuracy; "
            "†: not matched.\n\n"
            f"{shown.to_markdown(index=False, disable_numparse=True)}\n"
        )
    return "\n".join(blocks) or "Nothing to compare: no cell of the reference finished.\n"


def main(
    selection: Input, cells: Input, *, settings: Settings, csv: Output, markdown: Output
) -> None:
    table = compare(read_table(selection), read_table(cells), settings)
    write_atomically(csv, table.to_csv(index=False))
    write_atomically(markdown, to_markdown(table))


if __name__ == "__main__":
    run(main)
