"""State, by rules, which claims of the paper hold in this run.

The claims are those of the abstract of arXiv 2009.06571:

- C1, training with a penalty on the norm of the input Hessian is feasible: *holds* if every network
  so trained finished and learnt something: the 95% interval of its clean accuracy lies above what
  guessing the most frequent class would give.
- C2, the norm bounds how well a network withstands an attack: read as a bound, the quadratic model's
  radius must stay below the smallest perturbation found on at least 95% of the images, in every
  network; read as an order, its rank correlation with that perturbation must be positive, with its
  95% interval over the seeds, in every group of networks.  Both: *holds*; one: *holds partly*.
- C3, it is more robust than the penalty on the input gradient: in every pair of lam of matched
  clean accuracy (see compare), the difference of robust accuracies must be positive, with a p-value
  below 0.05 that is adjusted (Holm) for the comparisons of this claim.  Everywhere: *holds*;
  somewhere, and nowhere significantly negative: *holds partly*; no significant difference at all:
  *not shown*.

Else a claim *does not hold*; without a comparison it is *not tested*.
"""

import pandas as pd

from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.statistics import holm, relative_cost, t_interval
from input_hessian.experiment.table_text import NORMS, dataset_title
from input_hessian.experiment.tables import read_table

BOUND = 0.95  # share of images on which a bound must hold to be called one
ALPHA = 0.05
GROUP = ["dataset", "regularizer", "lam"]


def verdict(outcomes: list[bool], none: str = "does not hold") -> str:
    """Return the words for a list of outcomes; ``none`` are those for no positive one."""
    if not outcomes:
        return "not tested"
    return "holds" if all(outcomes) else "holds partly" if any(outcomes) else none


def better_than_guessing(cells: pd.DataFrame) -> pd.Series:
    """Return which networks are more accurate than guessing the most frequent class would be."""
    return cells["test_low"] > cells["constant_accuracy"]


def feasible(cells: pd.DataFrame, cost: pd.DataFrame | None, penalties: dict) -> tuple[str, str]:
    """Judge C1: did every Hessian-regularized network train, and at what cost?"""
    hessian = [name for name, penalty in penalties.items() if penalty == "hessian"]
    ours = cells[cells["regularizer"].isin(hessian)]
    finished = ours["status"] == "finished"
    learnt = finished & better_than_guessing(ours)
    trained = f"{finished.sum()} of {len(ours)} networks finished"
    if learnt.sum() < finished.sum():
        trained += f", {finished.sum() - learnt.sum()} of them no better than guessing one class"
    trained += "."
    if ours.empty:
        trained = "No network was trained with the penalty."
    if cost is None:
        unknown = "The cost of a training step was not measured."
        return verdict(learnt.tolist()), f"{trained} {unknown}"
    ratios = relative_cost(cost)
    costs = []
    for dataset, rows in ratios.groupby("dataset", sort=False):
        times = [
            f"{name} {middle:.1f} ({low:.1f} to {high:.1f})"
            for (_, name), (low, middle, high) in rows.iterrows()
            if name != "none"
        ]
        costs.append(f"{dataset_title(dataset)}: {', '.join(times)}")
    evidence = (
        f"{trained} Time of a training step as a multiple of "
        f"plain training's (median and quartiles of {cost['round'].nunique()} rounds, interleaved in "
        f"one process):"
    )
    return verdict(learnt.tolist()), "\n".join([evidence, *costs])


def bounds(curvature: pd.DataFrame | None) -> tuple[str, str]:
    """Judge C2: does the quadratic model's radius bound the smallest perturbation, or order it?"""
    if curvature is None or "compared" not in curvature:
        return verdict([]), "The curvature or the smallest perturbations were not measured."
    holds, ordered, lines = [], [], []
    for dataset, rows in curvature.groupby("dataset", sort=False):
        shares, correlations = [], []
        for key, group in rows.groupby(["regularizer", "lam"], sort=False):
            known = group["spearman_predicted"].dropna()
            if known.empty:
                continue
            name = key[0] if key[0] == "none" else f"{key[0]} {key[1]:g}"
            holds.append((group["bound_holds"] >= BOUND).all())
            shares.append((group["bound_holds"].mean(), name))
            interval = t_interval(known)
            # with one seed there is no interval: the correlation itself has to do
            ordered.append((interval.low if len(known) > 1 else interval.mean) > 0)
            correlations.append((interval.mean, name))
        if not shares:
            continue
        (least, at), (most, there) = min(shares), max(shares)
        (weakest, where), (strongest, here) = min(correlations), max(correlations)
        lines.append(
            f"{dataset_title(dataset)}: the predicted radius is below the smallest "
            f"perturbation on {100 * least:.0f}% ({at}) to {100 * most:.0f}% ({there}) of the images; "
            f"rank correlation of the two {weakest:.2f} ({where}) to {strongest:.2f} ({here})"
        )
    if not holds:
        return verdict([]), "No image was classified correctly and broken."
    readings = [all(holds), all(ordered)]
    seeds, images = curvature["seed"].nunique(), curvature["n"].max()
    evidence = (
        f"As a bound: {sum(holds)} of {len(holds)} groups of networks (a regularizer with its λ) keep "
        f"it on {100 * BOUND:g}% of the images; as an order: {sum(ordered)} of {len(ordered)} "
        f"(DDN, l2; up to {images} test images, means of {seeds} seed(s))."
    )
    return verdict(readings), "\n".join([evidence, *lines])


def more_robust(comparison: pd.DataFrame | None, names: list[str]) -> tuple[str, str]:
    """Judge whether the reference withstands more than these, at matched clean accuracy."""
    if comparison is None:
        return verdict([]), "No comparison was computed."
    rows = comparison[
        comparison["regularizer"].isin(names)
        & comparison["choice"].str.contains("matched|closest", regex=True)
    ]
    if rows.empty:
        return verdict([]), "Nothing to compare."
    counted = rows[rows["matched"]]
    significant = holm(counted["p_value"]) < ALPHA
    better = (significant & (counted["difference"] > 0)).tolist()
    worse = significant & (counted["difference"] < 0)
    starred = set(counted.index[significant])
    lines = []
    for (dataset, norm, epsilon), group in rows.groupby(["dataset", "norm", "epsilon"], sort=False):
        items = [
            f"{row.regularizer} {row.lam:g} {100 * row.robust_second:.1f} and {row.reference} "
            f"{row.reference_lam:g} {100 * row.robust_first:.1f}, {100 * row.difference:+.1f} "
            f"[{100 * row.low:.1f}, {100 * row.high:.1f}]"
            f"{'*' * (row.Index in starred)}{'' if row.matched else ' †'}"
            for row in group.sort_values(["regularizer", "lam"]).itertuples()
        ]
        lines.append(f"{dataset_title(dataset)} {NORMS[norm]} {epsilon:g}: {'; '.join(items)}")
    unmatched = "; †: no λ of equal clean accuracy, not counted"
    evidence = (
        f"Significantly better in {sum(better)} of {len(counted)} comparisons at equal clean accuracy "
        f"(within half a point, on validation images), worse in {worse.sum()}. Below, with their λ: "
        f"percent of {rows['images'].max()} test images that withstand every attack both underwent, "
        f"means of {rows['seeds_first'].max()} seed(s), and the difference in points with its 95% "
        f"interval; *: p < {ALPHA:g} after Holm's adjustment for these comparisons"
        f"{'' if rows['matched'].all() else unmatched}."
    )
    evidence = "\n".join([evidence, *lines])
    if worse.any():
        return "does not hold", evidence
    return verdict(better, none="not shown"), evidence


def judge(cells, cost, curvature, comparison, penalties: dict) -> pd.DataFrame:
    """Return one row per claim: ``claim, verdict, evidence``; the evidence in lines.

    Args:
        cells: table of collect.
        cost: table of measure_cost, all datasets; this and the next two are None where they were
            not computed.
        curvature: table of collect_curvature.
        comparison: table of compare; what has another reference than a Hessian penalty, or a
            network no better than guessing on either side, says nothing about the claims.
        penalties: penalty of every regularizer.
    """
    if comparison is not None:
        comparison = comparison[comparison["reference"].map(penalties) == "hessian"]
        finished = cells[cells["status"] == "finished"]
        guessing = finished.loc[~better_than_guessing(finished), GROUP].drop_duplicates()
        guessing = set(guessing.itertuples(index=False, name=None))
        sides = (["reference", "reference_lam"], ["regularizer", "lam"])
        for side in sides:
            groups = comparison[["dataset", *side]].itertuples(index=False, name=None)
            trained = pd.Series([group not in guessing for group in groups], dtype=bool)
            comparison = comparison[trained.to_numpy()]

    def named(penalty: str) -> list[str]:
        return [name for name, kind in penalties.items() if kind == penalty]

    rows = [
        ("C1: the penalty can be trained with", *feasible(cells, cost, penalties)),
        ("C2: ‖H‖ bounds how well a network withstands an attack", *bounds(curvature)),
        (
            "C3: more robust than the penalty on the input gradient",
            *more_robust(comparison, named("gradient")),
        ),
        (
            "Not claimed: more robust than adversarial training",
            *more_robust(comparison, named("adversarial")),
        ),
    ]
    return pd.DataFrame(rows, columns=["claim", "verdict", "evidence"])


def to_markdown(claims: pd.DataFrame) -> str:
    """Return a list of the claims, with the details of the evidence below each."""
    items = []
    for row in claims.itertuples():
        summary, *details = row.evidence.replace("*", r"\*").split("\n")
        items += [f"- **{row.claim}: {row.verdict}.** {summary}", *(f"  - {d}" for d in details)]
    return "\n".join(items) + "\n"


def main(
    cells: Input,
    cost: list[Input],
    curvature: list[Input],
    comparison: list[Input],
    *,
    settings: Settings,
    csv: Output,
    markdown: Output,
) -> None:
    claims = judge(
        read_table(cells),
        pd.concat(map(read_table, cost)) if cost else None,
        *(read_table(*path) if path else None for path in (curvature, comparison)),
        settings["penalties"],
    )
    write_atomically(csv, claims.to_csv(index=False))
    write_atomically(markdown, to_markdown(claims))


if __name__ == "__main__":
    run(main)
