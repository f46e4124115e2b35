"""Small tables as the pipeline writes them, with numbers that are made up, the same in every run."""

import itertools

import numpy as np
import pandas as pd

from input_hessian.experiment.results import CURVATURE, QUANTILES

# Regularizers of a small experiment, each with its penalty strengths.
GRID = {"none": [0.0], "gradient": [0.1, 1.0], "hessian": [1.0]}
EPSILONS = {"linf": [0.0, 0.1, 0.2], "l2": [0.0, 0.5]}
HEADLINE = {"linf": [0.1], "l2": [0.5]}


def cells(grid=GRID, seeds=(0, 1), datasets=("digits",), status="finished") -> pd.DataFrame:
    """Table of collect: one row per cell, regularizers more accurate as they come later."""
    names = list(grid)
    rows = [
        {"dataset": dataset, "regularizer": name, "lam": lam, "seed": seed, "status": status}
        | {"test_accuracy": 0.9 + 0.05 * names.index(name) / len(names) + 0.01 * seed}
        | {"test_images": 400, "test_low": 0.85, "test_high": 0.99, "constant_accuracy": 0.12}
        for dataset in datasets
        for name in names
        for lam in grid[name]
        for seed in seeds
    ]
    return pd.DataFrame(rows)


def robustness(
    cells: pd.DataFrame, attacks=("fgsm", "pgd", "worst"), epsilons=EPSILONS, share=None
) -> pd.DataFrame:
    """Table of collect: a row per cell, attack, norm and epsilon.

    Args:
        cells: the table above.
        attacks: their names.
        epsilons: radii per norm.
        share: robust accuracy of every row; by default it falls with epsilon.
    """
    names = list(cells["regularizer"].unique())
    rows = []
    for cell in cells.loc[
        cells["status"] == "finished", ["dataset", "regularizer", "lam", "seed"]
    ].to_dict("records"):
        for attack, norm in itertools.product(attacks, epsilons):
            for k, epsilon in enumerate(epsilons[norm]):
                accuracy = 1 / (1 + k) * (0.7 + 0.1 * names.index(cell["regularizer"]) / len(names))
                accuracy = accuracy + 0.02 * cell["seed"] if share is None else share
                bounds = {"low": max(0, accuracy - 0.1), "high": min(1, accuracy + 0.1)}
                at = {"attack": attack, "norm": norm, "epsilon": epsilon, "n": 40}
                rows.append(cell | at | {"robust_accuracy": accuracy} | bounds)
    columns = ["dataset", "regularizer", "lam", "seed", "attack", "norm", "epsilon", "n"]
    return pd.DataFrame(rows, columns=[*columns, "robust_accuracy", "low", "high"])


def groups(robustness: pd.DataFrame) -> pd.DataFrame:
    """Table of collect: a row per lam, attack, norm and epsilon, the mean over seeds."""
    keys = ["dataset", "regularizer", "lam", "attack", "norm", "epsilon"]
    table = robustness.groupby(keys, sort=False, as_index=False)
    table = table.agg(mean=("robust_accuracy", "mean"), seeds=("seed", "size"))
    bounds = {"low": (table["mean"] - 0.1).clip(0), "high": (table["mean"] + 0.1).clip(upper=1)}
    return table.assign(**bounds, images=40)


def selection(cells: pd.DataFrame) -> pd.DataFrame:
    """Table of select_lam: the last λ of every regularizer is selected."""
    table = cells[["dataset", "regularizer", "lam"]].drop_duplicates(ignore_index=True)
    last = ~table.duplicated(["dataset", "regularizer"], keep="last")
    accuracies = {"validation_accuracy": 0.95, "validation_robust_accuracy": 0.5}
    return table.assign(**accuracies, seeds=2, eligible=True, selected=last)


def matched(groups: pd.DataFrame) -> pd.DataFrame:
    """Table of compare: every regularizer halfway between plain training and its first λ.

    As there, nothing is comparable where plain training diverged.
    """
    plain = set(groups.loc[groups["regularizer"] == "none", "dataset"])
    table = groups[(groups["attack"] == "worst") & groups["dataset"].isin(plain)]
    first = ~table.duplicated(["dataset", "regularizer", "norm", "epsilon"])
    table = table[first & (table["epsilon"] > 0)]
    table = table.rename(columns={"mean": "robust", "lam": "lam_high"})
    weight = 0.5 * (table["regularizer"] != "none")
    errors = {"validation_error": 0.05, "clean_error": 0.06, "attacked_error": 0.07}
    found = np.where(table["norm"] == "l2", 0.8, np.nan)
    table = table.assign(lam_low=0.0, weight=weight, median_perturbation=found, **errors)
    return table.drop(columns="attack")


def path(cells: pd.DataFrame, sign: float = 1.0) -> pd.DataFrame:
    """Table of collect_path: three parts of the rise of the loss, of which ``sign`` turns one."""
    table = cells.loc[cells["status"] == "finished", ["dataset", "regularizer", "lam", "seed"]]
    parts = {"by_gradient": 0.2 + 0.1 * table["seed"], "by_curvature": 0.3 * sign}
    table = table.assign(n=40, **parts, remainder=0.1)
    bounds = {"bound_holds": 1.0, "tightness": 0.5}
    bounds |= {f"margin_{name}": value for name, value in bounds.items()}
    return table.assign(
        rise=table[["by_gradient", "by_curvature", "remainder"]].sum(axis=1), **bounds
    )


def curves(cells: pd.DataFrame, epochs: int = 3) -> pd.DataFrame:
    """Learning curves: a row per cell and epoch."""
    table = cells.drop(columns="status").merge(
        pd.DataFrame({"epoch": range(1, epochs + 1)}), how="cross"
    )
    table["accuracy"] = 1 - 0.5 / table["epoch"] + 0.01 * table["seed"]
    table["validation_accuracy"] = table["accuracy"] - 0.05
    return table.assign(penalty=table["lam"] / table["epoch"])


def autoattack(groups: pd.DataFrame, selection: pd.DataFrame) -> pd.DataFrame:
    """Table of tabulate_attacks: what each attack leaves at the headline radii."""
    chosen = selection.loc[selection["selected"], ["dataset", "regularizer", "lam"]]
    radii = [(norm, epsilon) for norm, values in HEADLINE.items() for epsilon in values]
    table = groups.merge(chosen).merge(pd.DataFrame(radii, columns=["norm", "epsilon"]))
    table["mean"] += table["attack"].map({"fgsm": 0.1, "pgd": 0.05}).fillna(0)
    return table


def masking(cells: pd.DataFrame, value: float = 0.0) -> pd.DataFrame:
    """Table of collect_masking: every check for every cell, and for a control that is flagged."""
    control = cells.drop_duplicates("dataset").assign(regularizer="control", lam=0.0, seed=0)
    finished = cells[cells["status"] == "finished"]
    table = pd.concat([finished.assign(value=value), control.assign(value=1.0)])
    checks = ["single_step", "more_steps", "black_box", "huge_epsilon", "zero_gradients"]
    checks = pd.DataFrame({"check": [*checks, "pgd_gap", "margin"]})
    table = table[["dataset", "regularizer", "lam", "seed", "value"]].merge(checks, how="cross")
    threshold = pd.Series(0.02, table.index).where(table["check"] != "margin")
    return table.assign(threshold=threshold, flagged=table["value"] > threshold)


def curvature(cells: pd.DataFrame, scale: float = 1.0) -> pd.DataFrame:
    """Table of collect_curvature: quantiles per cell."""
    table = cells.loc[cells["status"] == "finished", ["dataset", "regularizer", "lam", "seed"]]
    for measure in CURVATURE:
        table = table.assign(**{f"{measure}_mean": scale})
        for k, name in enumerate(QUANTILES):
            table = table.assign(**{f"{measure}_{name}": scale * 10.0**k * (1 + table["seed"])})
    return table.assign(n=40, converged=1.0)


def cost(cells: pd.DataFrame, rounds: int = 4) -> pd.DataFrame:
    """Times of measure_cost for one dataset."""
    names = list(cells["regularizer"].unique())
    rows = [
        {"dataset": cells["dataset"].iloc[0], "regularizer": name, "round": round, "batch_size": 64}
        | {"milliseconds": (1 + k) * (1 + 0.1 * round)}
        for round in range(rounds)
        for k, name in enumerate(names)
    ]
    return pd.DataFrame(rows)


def recovery(lam: float, progress=(0.0, 1.0), draws: int = 2) -> pd.DataFrame:
    """Measurements of measure_recovery for one λ."""
    estimators = [
        ("power", "gradient", None),
        ("lanczos", "random", None),
        ("ascent", "random", 1.0),
    ]
    rows = [
        {"method": method, "start": start, "step_size": step_size, "hvps": hvps, "draw": draw}
        | {
            "step": step,
            "progress": at,
            "of_mean": 1 - 0.5 / hvps - 0.1 * at,
            "median": 1 - 0.6 / hvps,
        }
        | {"dataset": "digits", "regularizer": "hessian", "lam": lam, "seed": 0}
        for step, at in enumerate(progress)
        for method, start, step_size in estimators
        for hvps in (1, 2, 4)
        for draw in range(draws)
    ]
    return pd.DataFrame(rows)


def image_curvature(cell: dict, n: int = 12, seed: int = 0) -> pd.DataFrame:
    """Measurements of measure_curvature: a row per image of one cell."""
    rng = np.random.default_rng(seed)
    measures = {measure: rng.lognormal(size=n) for measure in CURVATURE}
    return pd.DataFrame({"index": np.arange(n), **cell, **measures}).assign(
        correct=np.arange(n) != 0,
        loss=rng.lognormal(-2, size=n),
        predicted_radius=rng.lognormal(size=n),
        converged=True,
    )


def perturbations(cell: dict, n: int = 12, seed: int = 1) -> pd.DataFrame:
    """Smallest perturbations that DDN found, a row per image of one cell."""
    distance = np.random.default_rng(seed).lognormal(size=n)
    return pd.DataFrame(
        {"index": np.arange(n), **cell, "attack": "ddn", "norm": "l2", "distance": distance}
    )
