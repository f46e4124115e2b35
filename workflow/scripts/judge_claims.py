"""State, by rules, which claims of the paper hold in this run.

The claims are those of the abstract of arXiv 2009.06571:

- C1, training with a penalty on the norm of the input Hessian is feasible: *holds* if every network
  so trained finished and learnt something: the 95% interval of its clean accuracy lies above what
  guessing the most frequent class would give.
- C2, the norm bounds how well a network withstands an attack: read as a bound, the quadratic model's
  radius must stay below the smallest perturbation found on at least 95% of the images, in every
  network; read as an order, its rank correlation with that perturbation must be positive, with its
  95% interval over the seeds, and not below those of the loss and of the margin, in every group of
  networks.  Both: *holds*; one: *holds partly*.  Along the path of an attack the bound is a theorem;
  how tight it is, is only reported.
- C3, it is more robust than the penalty on the input gradient: the contrasts of compare with gradient
  penalties.  More robust in all: *holds*; less robust in any: *does not hold*; more robust in some:
  *holds partly*; else *not shown*.

Else a claim *does not hold*; without a comparison it is *not tested*.
"""

import pandas as pd

from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.statistics import relative_cost, t_interval
from input_hessian.experiment.table_text import NORMS, dataset_title
from input_hessian.experiment.tables import CELL, better_than_guessing, read_table

BOUND = 0.95  # share of images on which a bound must hold to be called one


def verdict(outcomes: list[bool], none: str = "does not hold") -> str:
    """Return the words for a list of outcomes; ``none`` are those for no positive one."""
    if not outcomes:
        return "not tested"
    return "holds" if all(outcomes) else "holds partly" if any(outcomes) else none


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


def bounds(
    curvature: pd.DataFrame | None,
    path: pd.DataFrame | None = None,
    across: dict[str, str] | None = None,
) -> tuple[str, str]:
    """Judge C2: does the quadratic model's radius bound the smallest perturbation, or order it?

    Args:
        curvature: table of collect_curvature.
        path: table of collect_path.
        across: the words of :func:`across_networks`, by dataset.
    """
    if curvature is None or "compared" not in curvature:
        return verdict([]), "The curvature or the smallest perturbations were not measured."
    holds, ordered, lines = [], [], []
    for dataset, rows in curvature.groupby("dataset", sort=False):
        shares, correlations, others = [], [], []
        for key, group in rows.groupby(["regularizer", "lam"], sort=False):
            known = group["spearman_predicted"].dropna()
            if known.empty:
                continue
            name = key[0] if key[0] == "none" else f"{key[0]} {key[1]:g}"
            holds.append((group["bound_holds"] >= BOUND).all())
            shares.append((group["bound_holds"].mean(), name))
            interval = t_interval(known)
            # with one seed there is no interval: the correlation itself has to do
            positive = (interval.low if len(known) > 1 else interval.mean) > 0
            confidence = group[["spearman_loss", "spearman_margin"]].mean()
            ordered.append(positive and interval.mean >= confidence.max())
            correlations.append((interval.mean, name))
            others.append(confidence)
        if not shares:
            continue
        (least, at), (most, there) = min(shares), max(shares)
        (weakest, where), (strongest, here) = min(correlations), max(correlations)
        confidence = pd.concat(others, axis=1)
        low, high = confidence.min(axis=1), confidence.max(axis=1)
        lines.append(
            f"{dataset_title(dataset)}: the predicted radius is below the smallest "
            f"perturbation on {100 * least:.0f}% ({at}) to {100 * most:.0f}% ({there}) of the images; "
            f"rank correlation of the two {weakest:.2f} ({where}) to {strongest:.2f} ({here}), of the "
            f"loss alone {low.iloc[0]:.2f} to {high.iloc[0]:.2f}, of the margin alone {low.iloc[1]:.2f} to "
            f"{high.iloc[1]:.2f}"
        )
        if across and dataset in across:
            lines.append(across[dataset])
    if not holds:
        return verdict([]), "No image was classified correctly and broken."
    for dataset, rows in path.groupby("dataset", sort=False) if path is not None else ():
        groups = rows.groupby(["regularizer", "lam"], sort=False)
        tight, margin = (groups[c].mean() for c in ("tightness", "margin_tightness"))
        lines.append(
            f"{dataset_title(dataset)}: along the path of the attack the bound holds on "
            f"{100 * rows['bound_holds'].min():.1f}% of the images or more, and is {tight.min():.2f} to "
            f"{tight.max():.2f} of the distance (medians); that of the margin holds on "
            f"{100 * rows['margin_bound_holds'].min():.1f}% or more, and is {margin.min():.2f} to "
            f"{margin.max():.2f} of it"
        )
    readings = [all(holds), all(ordered)]
    seeds, images = curvature["seed"].nunique(), curvature["n"].max()
    evidence = (
        f"As a bound: {sum(holds)} of {len(holds)} groups of networks (a regularizer with its λ) keep "
        f"it on {100 * BOUND:g}% of the images; as an order, {sum(ordered)} of {len(ordered)} are "
        "ordered at least as well as by loss or margin alone "
        f"(DDN, l2; up to {images} test images, means of {seeds} seed(s))."
    )
    return verdict(readings), "\n".join([evidence, *lines])


def across_networks(
    curvature: pd.DataFrame, groups: pd.DataFrame, cells: pd.DataFrame, epsilons: dict
) -> dict[str, str]:
    """Return, per dataset, how norms order the networks: rank correlations with robust accuracy.

    Networks that learnt nothing are flat and break all the same; they are left out.

    Args:
        curvature: table of collect_curvature.
        groups: that of collect.
        cells: likewise.
        epsilons: radii per dataset and norm; those of l2 are averaged.
    """
    learnt = curvature.merge(cells.loc[better_than_guessing(cells), CELL])
    found = {}
    for dataset, radii in epsilons.items():
        worst = groups[
            (groups["dataset"] == dataset)
            & (groups["attack"] == "worst")
            & (groups["norm"] == "l2")
            & groups["epsilon"].isin(radii["l2"])
        ]
        robust = worst.groupby(["regularizer", "lam"])["mean"].mean()
        here = learnt[learnt["dataset"] == dataset].groupby(["regularizer", "lam"])
        norms = here[
            [f"{of}_norm_{kind}" for of in ("hessian", "gradient") for kind in ("mean", "median")]
        ]
        table = norms.mean().join(robust.rename("robust"), how="inner")
        if len(table) < 4:
            continue
        rank = table.corr("spearman")["robust"]
        found[dataset] = (
            f"{dataset_title(dataset)}: over {len(table)} groups of networks that learnt something, robust accuracy (l2, all "
            f"radii) and the norms, rank correlations: mean ‖H‖ {rank.iloc[0]:.2f}, median ‖H‖ "
            f"{rank.iloc[1]:.2f}, mean ‖g‖ {rank.iloc[2]:.2f}, median ‖g‖ {rank.iloc[3]:.2f}"
        )
    return found


def more_robust(
    comparison: pd.DataFrame | None, names: list[str], contrasts: int
) -> tuple[str, str]:
    """Judge whether the reference withstands more than these, at a limited loss of clean accuracy.

    Args:
        comparison: table of compare.
        names: of the other regularizers.
        contrasts: how many there should be, one per dataset and norm; the claim holds if it does in
            all of them.
    """
    if comparison is None:
        return verdict([]), "No comparison was computed."
    rows = comparison[comparison["regularizer"].isin(names) & comparison["p_holm"].notna()]
    if rows.empty:
        return verdict([]), "Nothing to compare."
    words = rows["conclusion"]
    lines = [
        f"{dataset_title(row.dataset)}, {NORMS[row.norm]} {row.epsilons.strip('[]')}: "
        + (
            f"{row.conclusion} than {row.regularizer}"
            if row.conclusion.endswith("robust")
            else f"no difference from {row.regularizer} shown"
        )
        for row in rows.itertuples()
    ]
    numbers = [
        f" ({100 * row.difference:+.1f} points [{100 * row.low:.1f}, {100 * row.high:.1f}], p {p_text(row.p_holm)}"
        + (
            f"; {100 * row.detectable:.1f} would have been found with a probability of 80%)"
            if row.conclusion == "no difference shown"
            else ")"
        )
        for row in rows.itertuples()
    ]
    better, worse = (words == "more robust"), (words == "less robust")
    flagged = sorted({text for text in rows["flagged"].dropna() if text})
    evidence = (
        f"At a limited loss of clean accuracy, more robust in {better.sum()} of {len(rows)} contrasts, less robust in "
        f"{worse.sum()} ({rows['images'].max()} test images, {rows['seeds'].min()} seed(s); p after Holm's "
        f"adjustment for the contrasts of the family)."
        + f" Flagged by checks for gradient masking: {'; '.join(flagged)}."
        * bool(flagged)
    )
    evidence = "\n".join(
        [evidence, *(line + number for line, number in zip(lines, numbers, strict=True))]
    )
    if worse.any():
        return "does not hold", evidence
    missing = [False] * max(0, contrasts - len(rows))
    return verdict(better.tolist() + missing, none="not shown"), evidence


def p_text(p: float) -> str:
    """Return a p-value as it stands in a sentence."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def judge(cells, cost, curvature, path, comparison, groups, settings: dict) -> pd.DataFrame:
    """Return one row per claim: ``claim, verdict, evidence``; the evidence in lines.

    Args:
        cells: table of collect.
        cost: table of measure_cost, all datasets; this and the next three are None where they were
            not computed.
        curvature: table of collect_curvature.
        path: table of collect_path.
        comparison: table of compare; what has another reference than a Hessian penalty, or a dataset
            on which plain training learnt nothing, says nothing about the claims.
        groups: table of collect.
        settings: ``penalties``, the penalty of every regularizer, and ``epsilons``, the radii.
    """
    penalties = settings["penalties"]
    # The claims are about what is trained here, not about networks from elsewhere.
    cells, curvature, path, groups = (
        table if table is None else table[table["regularizer"].isin(penalties)]
        for table in (cells, curvature, path, groups)
    )
    if comparison is not None:
        plain = cells[(cells["regularizer"] == "none") & (cells["status"] == "finished")]
        guessing = set(plain.loc[~better_than_guessing(plain), "dataset"])
        comparison = comparison[
            (comparison["reference"].map(penalties) == "hessian")
            & ~comparison["dataset"].isin(guessing)
        ]
    contrasts = sum(len(norms) for norms in settings["epsilons"].values())
    across = (
        None
        if curvature is None
        else across_networks(curvature, groups, cells, settings["epsilons"])
    )

    def named(penalty: str) -> list[str]:
        return [name for name, kind in penalties.items() if kind == penalty]

    rows = [
        ("C1: the penalty can be trained with", *feasible(cells, cost, penalties)),
        (
            "C2: ‖H‖ bounds how well a network withstands an attack",
            *bounds(curvature, path, across),
        ),
        (
            "C3: more robust than the penalty on the input gradient",
            *more_robust(comparison, named("gradient"), contrasts),
        ),
        (
            "Not claimed: more robust than adversarial training",
            *more_robust(comparison, named("adversarial"), contrasts),
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
    path: list[Input],
    comparison: list[Input],
    groups: Input,
    *,
    settings: Settings,
    csv: Output,
    markdown: Output,
) -> None:
    claims = judge(
        read_table(cells),
        pd.concat(map(read_table, cost)) if cost else None,
        *(read_table(*table) if table else None for table in (curvature, path, comparison)),
        read_table(groups),
        settings,
    )
    write_atomically(csv, claims.to_csv(index=False))
    write_atomically(markdown, to_markdown(claims))


if __name__ == "__main__":
    run(main)
