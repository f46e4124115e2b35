"""Compare regularizers at a limited loss of clean accuracy, by the rules of docs/protocol.md."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from input_hessian.experiment.blocks import Block, to_latex, to_markdown
from input_hessian.experiment.cells import cell_folder, imported
from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.errors import UserError
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.readers import read_parquet
from input_hessian.experiment.results import least_accuracy, worst_case
from input_hessian.experiment.statistics import best_point, contrast, holm
from input_hessian.experiment.table_text import NORMS, dataset_title, percent, with_interval
from input_hessian.experiment.tables import CELL, read_table

ALPHA = 0.05
POINT = ["dataset", "norm", "regularizer", "lam_low", "lam_high", "weight"]
MATCHED = [*POINT, "validation_error", "validation_robust", "clean_error", "attacked_error"]
MATCHED += ["epsilon", "robust", "low", "high", "median_perturbation", "images", "seeds"]
COMPARED = ["family", "dataset", "norm", "epsilons", "clean_loss", "reference", "regularizer"]
COMPARED += ["clean_difference", "difference", "low", "high", "p_value", "p_holm", "detectable"]
COMPARED += ["conclusion", "flagged", "images", "seeds"]
# The limits at which the contrasts are made again, as multiples of that of the comparison: not tested.
OTHER_LIMITS = (0.5, 2)


def choose(selection: pd.DataFrame, max_clean_loss: Mapping[str, float]) -> pd.DataFrame:
    """Return where each regularizer is compared; only validation columns are looked at.

    A regularizer's curve starts at plain training and goes through its lam, those of which every seed
    finished.  Its point is that of :func:`input_hessian.experiment.statistics.best_point`: the one of
    largest robust accuracy, mean over the radii of the norm, whose clean accuracy is at most
    ``max_clean_loss`` below that of plain training.  A network that was trained elsewhere is on no such
    curve, and left out.

    Args:
        selection: the table of select.
        max_clean_loss: per dataset, in percentage points.
    """
    selection = selection.assign(least=least_accuracy(selection, max_clean_loss))
    selection = selection[~imported(selection)]
    rows = []
    for dataset, here in selection[selection["complete"]].groupby("dataset", sort=False):
        plain = here[here["regularizer"] == "none"]
        for name in here["regularizer"].unique() if len(plain) else []:
            own = here[here["regularizer"] == name].sort_values("lam")
            curve = plain if name == "none" else pd.concat([plain, own])
            errors = 1 - curve["validation_accuracy"]
            for norm in NORMS:
                robust = curve[f"validation_{norm}"]
                if robust.isna().any():
                    continue
                point = best_point(errors, list(robust), 1 - curve["least"].iloc[0])
                low, high = (curve["lam"].iloc[i] for i in (point.low, point.high))
                between = (1 - point.weight) * errors.iloc[point.low]
                between += point.weight * errors.iloc[point.high]
                withstands = (1 - point.weight) * robust.iloc[point.low]
                withstands += point.weight * robust.iloc[point.high]
                rows.append([dataset, norm, name, low, high, point.weight, between, withstands])
    return pd.DataFrame(rows, columns=[*POINT, "validation_error", "validation_robust"])


def corners(point: dict) -> list[tuple[str, float, float]]:
    """Return regularizer, lam and weight of the networks that a point uses; lam 0 is plain training."""
    weights = (point["lam_low"], 1 - point["weight"]), (point["lam_high"], point["weight"])
    return [
        (point["regularizer"] if lam else "none", lam, weight) for lam, weight in weights if weight
    ]


def different_images(dataset: str, names: str) -> str:
    """Return the message for networks that cannot be compared image by image."""
    return (
        f"{dataset}: networks of {names} were attacked on different images, expected the same; "
        "remove their images.parquet to attack them again"
    )


class Cells:
    """What the attacks did to the networks of each regularizer and lam, seed by seed.

    Args:
        results: folder of the cells.
        cells: table of collect; those that finished are read.
    """

    def __init__(self, results: Path, cells: pd.DataFrame):
        finished = cells[cells["status"] == "finished"]
        self.results = results
        self.groups = {
            key: group.sort_values("seed")
            for key, group in finished.groupby(["dataset", "regularizer", "lam"])
        }
        self.tables: dict[tuple, pd.DataFrame] = {}

    def read(self, dataset: str, name: str, lam: float, file: str) -> pd.DataFrame:
        """Return a file of all seeds, with the column ``seed``."""
        key = (dataset, name, lam, file)
        if key not in self.tables:
            tables = []
            for cell in self.groups[dataset, name, lam].to_dict("records"):
                folder = cell_folder(self.results, *(cell[key] for key in CELL))
                table = read_parquet(folder / file)
                if file == "images.parquet":
                    columns = ["index", "attack", "norm", "epsilon", "robust"]
                    table = worst_case(table[columns])
                tables.append(table.assign(seed=cell["seed"]))
            self.tables[key] = pd.concat(tables)
        return self.tables[key]

    def withstood(self, point: dict) -> dict[float, pd.DataFrame]:
        """Return, per epsilon, the share ``[seeds, images]`` of cases that withstood every attack.

        The two networks between which a point lies have the same seed; the coin of
        :func:`input_hessian.experiment.statistics.best_point` is known to the attacker, which is the
        worst case.
        """
        shares = {}
        for name, lam, weight in corners(point):
            images = self.read(point["dataset"], name, lam, "images.parquet")
            images = images[images["norm"] == point["norm"]]
            for epsilon, rows in images.groupby("epsilon"):
                table = weight * rows.pivot(index="seed", columns="index", values="robust").astype(
                    float
                )
                shares[epsilon] = shares[epsilon] + table if epsilon in shares else table
        for table in shares.values():
            if table.isna().any(axis=None):
                raise UserError(different_images(point["dataset"], point["regularizer"]))
        return shares

    def mixed(self, point: dict, column: str) -> float:
        """Return a column of the table of cells at a point, mean over seeds."""
        return sum(
            weight * self.groups[point["dataset"], name, lam][column].mean()
            for name, lam, weight in corners(point)
        )

    def median_perturbation(self, point: dict) -> float:
        """Return the median over images and seeds of the smallest l2 perturbation that DDN found."""
        sizes, weights = [], []
        for name, lam, weight in corners(point):
            table = self.read(point["dataset"], name, lam, "perturbations.parquet")
            distance = table.loc[table["attack"] == "ddn", "distance"]
            sizes += list(distance)
            weights += [weight] * len(distance)
        order = np.argsort(sizes)
        total = np.cumsum(np.asarray(weights)[order])
        return sizes[order[np.searchsorted(total, total[-1] / 2)]] if sizes else np.nan


def measure(points: pd.DataFrame, cells: Cells) -> pd.DataFrame:
    """Return one row per point and epsilon: what is left on the test images, with its interval."""
    rows = []
    for point in points.to_dict("records"):
        shares = cells.withstood(point)
        if not shares:  # no attack of this norm ran
            continue
        at_zero = shares.pop(0.0)
        about = point | {
            "clean_error": 1 - cells.mixed(point, "test_accuracy"),
            "attacked_error": 1 - at_zero.to_numpy().mean(),
            "median_perturbation": cells.median_perturbation(point)
            if point["norm"] == "l2"
            else np.nan,
        }
        for epsilon, table in shares.items():
            found = contrast(table.to_numpy())
            rows.append(about | {"epsilon": epsilon, "robust": found.mean} | found._asdict())
    return pd.DataFrame(rows, columns=MATCHED)


def conclusion(difference: float, p_value: float) -> str:
    """Return the words for a difference."""
    if np.isnan(p_value):
        return "not tested"
    if p_value >= ALPHA:
        return "no difference shown"
    return "more robust" if difference > 0 else "less robust"


def flags(masking: pd.DataFrame | None) -> Callable[..., str]:
    """Return what names the networks at some points that a masking check flagged, any seed of them.

    Args:
        masking: table of collect_masking, if it was computed.
    """
    found: dict[tuple, set[str]] = {}
    if masking is not None:
        for row in masking[masking["flagged"]].itertuples():
            found.setdefault((row.dataset, row.regularizer, row.lam), set()).add(row.check)

    def flagged(*points: dict) -> str:
        texts = []
        for point in points:
            for name, lam, _ in corners(point):
                if checks := found.get((point["dataset"], name, lam)):
                    texts.append(f"{name} {lam:g}: {', '.join(sorted(checks))}")
        return "; ".join(dict.fromkeys(texts))

    return flagged


def compare(
    points: pd.DataFrame,
    cells: Cells,
    settings: dict,
    flagged: Callable[..., str] = lambda *points: "",
) -> pd.DataFrame:
    """Return one row per family, dataset and norm; then those of the other regularizers, untested.

    The difference is that of the mean robust accuracy over the radii of the norm, the
    reference first; p-values are adjusted within a family.  Of a family, the member that is most
    robust on validation images is compared, for each dataset and norm.

    Args:
        points: from :func:`choose`.
        cells: the networks.
        settings: reference, families, radii and limits.
        flagged: from :func:`flags`.
    """
    reference = settings["reference"]
    by = {(p["dataset"], p["norm"], p["regularizer"]): p for p in points.to_dict("records")}
    families = {  # of each, for each dataset and norm, the member to compare with
        (dataset, norm, best.at[best["validation_robust"].idxmax(), "regularizer"]): family
        for family, names in settings["families"].items()
        for (dataset, norm), best in points[points["regularizer"].isin(names)].groupby(
            ["dataset", "norm"]
        )
    }
    rows, outcomes = [], []
    for dataset, radii in settings["epsilons"].items():
        for norm, epsilons in radii.items():
            if (dataset, norm, reference) not in by:
                continue
            ours = cells.withstood(by[dataset, norm, reference])
            if not ours:  # no attack of this norm ran
                continue
            for here, there, name in by:
                if (here, there) != (dataset, norm) or name == reference:
                    continue
                theirs = cells.withstood(by[dataset, norm, name])
                if not ours[epsilons[0]].columns.equals(theirs[epsilons[0]].columns):
                    raise UserError(different_images(dataset, f"{reference} and {name}"))
                clean = [
                    cells.mixed(by[dataset, norm, which], "test_accuracy")
                    for which in (reference, name)
                ]
                means = [
                    sum(of[epsilon].to_numpy() for epsilon in epsilons) / len(epsilons)
                    for of in (ours, theirs)
                ]
                found = contrast(*means)
                family = families.get((dataset, norm, name), "")
                outcomes.append(means)
                rows.append(
                    {"family": family, "dataset": dataset, "norm": norm}
                    | {"epsilons": json.dumps(epsilons)}
                    | {"clean_loss": settings["max_clean_loss"][dataset]}
                    | {"reference": reference, "regularizer": name, "difference": found.mean}
                    | {"clean_difference": clean[0] - clean[1]}
                    | found._asdict()
                    | {"flagged": flagged(by[dataset, norm, reference], by[dataset, norm, name])}
                    | ({} if family else {"p_value": np.nan})
                )
    table = pd.DataFrame(rows, columns=COMPARED)
    sizes = table["family"].map(table["family"].value_counts())
    for i, family in enumerate(table["family"]):
        if family:  # the smallest p of a family is compared with this level
            strict = contrast(*outcomes[i], confidence=1 - ALPHA / sizes[i])
            table.loc[i, "detectable"] = strict.detectable
    order = {family: i for i, family in enumerate([*settings["families"], ""])}
    table = table.sort_values("family", key=lambda names: names.map(order), kind="stable")
    table["p_holm"] = np.nan
    for family in settings["families"]:
        of_family = table["family"] == family
        table.loc[of_family, "p_holm"] = holm(table.loc[of_family, "p_value"])
    table["conclusion"] = list(map(conclusion, table["difference"], table["p_holm"]))
    return table


def at_other_limits(selection: pd.DataFrame, cells: Cells, settings: dict) -> pd.DataFrame:
    """Return the contrasts of the families at other limits of the clean loss, not tested."""
    tables = []
    for factor in OTHER_LIMITS:
        limits = {name: factor * limit for name, limit in settings["max_clean_loss"].items()}
        there = compare(choose(selection, limits), cells, settings | {"max_clean_loss": limits})
        tables.append(there[there["family"] != ""])
    table = pd.concat(tables) if tables else pd.DataFrame(columns=COMPARED)
    return table.assign(p_value=np.nan, p_holm=np.nan, conclusion="not tested")


def point_text(row) -> str:
    """Return the words for a point of a regularizer's curve."""
    if row.regularizer == "none":
        return "-"
    if not row.weight:
        return f"{row.lam_low:g}"
    return f"{row.lam_low:g} ({1 - row.weight:.0%}), {row.lam_high:g} ({row.weight:.0%})"


def signed(values: pd.Series) -> pd.Series:
    """Format differences of fractions as points with their sign."""
    return (100 * values).map("{:+.1f}".format)


def contrast_table(compared: pd.DataFrame) -> pd.DataFrame:
    """Return the contrasts in words, without the columns that say nothing."""
    table = pd.DataFrame(
        {
            "family": compared["family"].where(compared["family"] != "", "not tested"),
            "dataset": compared["dataset"].map(dataset_title),
            "attack": compared["norm"].map(NORMS) + " " + compared["epsilons"].str.strip("[]"),
            "limit": compared["clean_loss"].map("{:g}".format),
            "compared": compared["reference"] + " minus " + compared["regularizer"],
            "clean": signed(compared["clean_difference"]),
            "robust [95%]": with_interval(
                *(signed(compared[name]) for name in ("difference", "low", "high"))
            ),
            "p (Holm)": compared["p_holm"].map(
                lambda p: "" if np.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"
            ),
            "detectable": (100 * compared["detectable"]).map("{:.1f}".format),
            "conclusion": compared["conclusion"].where(compared["p_holm"].notna(), ""),
            "flagged": compared["flagged"],
        }
    )
    return table.loc[:, (table != "").any()]


def describe(
    matched: pd.DataFrame, compared: pd.DataFrame, others: pd.DataFrame, settings: dict
) -> list[Block]:
    """Return the contrasts, then one table per dataset and norm with every radius."""
    blocks = []
    if len(compared):
        seeds = compared["seeds"].min()
        over = "images and seeds"
        if seeds == 1:
            over = "images; with one seed, it speaks about these networks"
        about = (
            "Differences in points. Limit: of the clean accuracy lost against plain training, on validation "
            "images; clean: difference of the clean accuracies of all test images; robust: of the robust "
            f"accuracies, mean over the radii named, on {compared['images'].max()} test images; 95% interval "
            f"over {over}, not adjusted. p: adjusted by Holm's method within a family. Detectable: "
            "the smallest true difference that the test finds with a probability of 80% at the level of the "
            "family's smallest p. Flagged: checks for gradient masking that a network on either side "
            "failed."
        )
        blocks.append(Block(about=about, table=contrast_table(compared)))
    if len(others):
        about = "The contrasts of the families at half and at twice the limit, not tested:"
        blocks.append(Block(about=about, table=contrast_table(others)))
    for (dataset, norm), rows in matched.groupby(["dataset", "norm"], sort=False):
        text = with_interval(*(percent(rows[name]) for name in ("robust", "low", "high")))
        rows = rows.assign(
            text=text, at=[f"{NORMS[norm]} {epsilon:g}" for epsilon in rows["epsilon"]]
        )
        wide = rows.pivot(index="regularizer", columns="at", values="text")[rows["at"].unique()]
        first = rows.drop_duplicates("regularizer").set_index("regularizer")
        about = {
            "λ": [point_text(row) for row in first.reset_index().itertuples()],
            "validation error": percent(first["validation_error"]),
            "test error": percent(first["clean_error"]),
        }
        if norm == "l2" and first["median_perturbation"].notna().any():
            about["median perturbation"] = first["median_perturbation"].map("{:.2f}".format)
        shown = pd.concat([pd.DataFrame(about, index=first.index), wide.loc[first.index]], axis=1)
        title = (
            f"{dataset_title(dataset)}, {NORMS[norm]}: at most {settings['max_clean_loss'][dataset]:g} "
            "points of clean accuracy below plain training"
        )
        about = (
            "Accuracies and errors in percent. "
            "Two λ: for each image a coin decides between their networks."
        )
        blocks.append(Block(title, about, shown.reset_index()))
    return blocks or [Block(about="Nothing can be compared: plain training diverged.")]


def main(
    selection: Input,
    cells: Input,
    masking: list[Input],
    images: list[Input],
    perturbations: list[Input],
    *,
    settings: Settings,
    matched: Output,
    csv: Output,
    sensitivity: Output,
    markdown: Output,
    latex: Output,
) -> None:
    # Images and perturbations are found by the cells; they are inputs so that they are there.
    choice = read_table(selection)
    points = choose(choice, settings["max_clean_loss"])
    networks = Cells(Path(settings["grid"]["results"]), read_table(cells))
    flagged = flags(read_table(*masking) if masking else None)
    at_points, compared = measure(points, networks), compare(points, networks, settings, flagged)
    others = at_other_limits(choice, networks, settings)
    write_atomically(matched, at_points.to_csv(index=False))
    write_atomically(csv, compared.to_csv(index=False))
    write_atomically(sensitivity, others.to_csv(index=False))
    blocks = describe(at_points, compared, others, settings)
    write_atomically(markdown, to_markdown(blocks))
    write_atomically(latex, to_latex(blocks, "comparison"))


if __name__ == "__main__":
    run(main)
