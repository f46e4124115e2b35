import math

import numpy as np
import pandas as pd
import pytest

from input_hessian.experiment.results import (
    CURVATURE,
    QUANTILES,
    broken_images,
    compare_radius,
    describe_curvature,
    least_accuracy,
    robust_accuracy,
    select,
    wilson_interval,
    with_distance,
    worst_case,
)
from input_hessian.experiment.tables import broken_at, empty_table, read_table, selected_lams


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    # Newcombe 1998, table I, method 3: the score interval without continuity correction
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_matches_published_values(k, n, low, high):
    assert wilson_interval(k, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_refuses_the_impossible():
    for k, n in ((5, 4), (0, 0)):
        with pytest.raises(ValueError, match=r"must be|k \(5\)"):
            wilson_interval(k, n)


@pytest.fixture
def images():
    """Three images, two attacks of one norm and one of the other."""
    verdicts = {
        ("fgsm", "linf", 0.1): [True, True, False],
        ("pgd", "linf", 0.1): [False, True, True],
        ("pgd", "l2", 0.1): [True, True, True],
    }
    rows = [
        {"index": i, "attack": a, "norm": n, "epsilon": e, "robust": robust}
        for (a, n, e), verdict in verdicts.items()
        for i, robust in zip((7, 3, 5), verdict, strict=True)
    ]
    return pd.DataFrame(rows)


def test_worst_case_is_the_minimum_per_image_and_norm(images):
    worst = worst_case(images).set_index(["norm", "index"])["robust"]
    assert worst["linf"].to_dict() == {7: False, 3: True, 5: False}
    assert worst["l2"].to_dict() == {7: True, 3: True, 5: True}


def test_robust_accuracy_counts_images(images):
    table = robust_accuracy(pd.concat([images, worst_case(images)]))
    table = table.set_index(["attack", "norm"])
    assert table.loc[("fgsm", "linf"), ["n", "robust"]].tolist() == [3, 2]
    assert table.loc[("worst", "linf"), "robust_accuracy"] == 1 / 3
    assert (table["low"] <= table["robust_accuracy"]).all()
    assert (table["robust_accuracy"] <= table["high"]).all()


def test_an_image_counted_twice_is_an_error(images):
    with pytest.raises(ValueError, match="one row per image"):
        robust_accuracy(pd.concat([images, images.iloc[:1]]))


def test_tables_keep_the_regularizer_none_and_empty_numbers(tmp_path):
    path = tmp_path / "table.csv"
    pd.DataFrame({"regularizer": ["none", "gradient"], "value": [None, 0.5]}).to_csv(
        path, index=False
    )
    table = read_table(path)
    assert table["regularizer"].tolist() == ["none", "gradient"]
    assert table["value"].isna().tolist() == [True, False]
    assert table["value"].dtype == float


@pytest.mark.parametrize("name", ["2024", "1e5", "true", "nan"])
def test_names_that_look_like_something_else_stay_names(name, tmp_path):
    row = {"dataset": name, "regularizer": name, "reference": name, "lam": 1.0}
    pd.DataFrame([row]).to_csv(tmp_path / "table.csv", index=False)
    assert read_table(tmp_path / "table.csv").to_dict("records") == [row]


def test_an_image_broken_at_one_radius_is_broken_at_every_larger_one():
    """Also where the attack that broke it ran at no other radius."""
    rows = [
        ("pgd", 0.1, True), ("pgd", 0.2, True), ("pgd", 0.3, True), ("apgd-t", 0.2, False),
    ]  # fmt: skip
    images = pd.DataFrame(
        [
            {"index": 4, "attack": attack, "norm": "l2", "epsilon": epsilon, "robust": robust}
            for attack, epsilon, robust in rows
        ]
    )
    worst = worst_case(images).set_index("epsilon")["robust"]
    assert worst.to_dict() == {0.1: True, 0.2: False, 0.3: False}
    assert broken_at(images).to_dict() == {(4, "l2"): 0.2}
    assert broken_at(images.iloc[:3]).to_dict() == {(4, "l2"): math.inf}


def cells(*rows, dataset="mnist"):
    """Cells of one dataset from (regularizer, lam, seed, validation accuracy, robust accuracy).

    Of the robust accuracy, the mean over both norms, each norm has its own part.
    """
    names = ["regularizer", "lam", "seed", "validation_accuracy", "validation_robust_accuracy"]
    table = pd.DataFrame(rows, columns=names).assign(dataset=dataset)
    robust = table["validation_robust_accuracy"].astype(float)
    table = table.assign(validation_linf=0.8 * robust, validation_l2=1.2 * robust)
    return table.assign(status=robust.notna().map({True: "finished", False: "diverged"}))


def chosen(table, points=2):
    table = select(table, dict.fromkeys(table["dataset"], points))
    return {row.regularizer: row.lam for row in table[table["selected"]].itertuples()}


NONE = [("none", 0, 0, 0.98, 0.1), ("none", 0, 1, 0.96, 0.1)]


def test_selection_takes_the_most_robust_weight_that_keeps_the_clean_accuracy():
    table = cells(
        *NONE,  # 0.97 in the mean, so 0.95 is the least
        ("hessian", 0.1, 0, 0.98, 0.4),
        ("hessian", 0.1, 1, 0.96, 0.4),
        ("hessian", 1, 0, 0.96, 0.7),
        ("hessian", 1, 1, 0.94, 0.5),  # means 0.95 and 0.6: just eligible
        ("hessian", 3, 0, 0.949, 0.9),
        ("hessian", 3, 1, 0.949, 0.9),
    )
    assert chosen(table) == {"none": 0, "hessian": 1}
    assert chosen(table, 3) == {"none": 0, "hessian": 3}
    assert chosen(table, 0) == {"none": 0, "hessian": 0.1}
    row = select(table, {"mnist": 2}).set_index(["regularizer", "lam"]).loc[("hessian", 1)]
    measures = ["validation_accuracy", "validation_linf", "validation_l2"]
    assert row[measures].tolist() == pytest.approx([0.95, 0.48, 0.72])
    assert row["validation_robust_accuracy"] == pytest.approx(0.6)
    assert (row["seeds"], row["complete"]) == (2, True)


def test_each_dataset_may_lose_as_much_clean_accuracy_as_it_says():
    rows = [*NONE, ("hessian", 1, 0, 0.96, 0.5), ("hessian", 3, 0, 0.94, 0.9)]
    table = pd.concat([cells(*rows), cells(*rows, dataset="fashion_mnist")], ignore_index=True)
    selection = select(table, {"mnist": 1, "fashion_mnist": 5})
    lams = selection[selection["selected"]].set_index(["dataset", "regularizer"])["lam"]
    assert lams[:, "hessian"].to_dict() == {"mnist": 1, "fashion_mnist": 3}
    # of plain training's mean of 0.97, one point and five, less what rounding may take
    least = least_accuracy(selection, {"mnist": 1, "fashion_mnist": 5})
    assert least.tolist() == pytest.approx([0.96] * 3 + [0.92] * 3, abs=2e-6)
    assert (least < [0.96] * 3 + [0.92] * 3).all()


def test_selection_where_no_weight_keeps_the_clean_accuracy_takes_the_most_accurate():
    table = cells(*NONE, ("hessian", 1, 0, 0.9, 0.2), ("hessian", 3, 0, 0.8, 0.9))
    assert chosen(table) == {"none": 0, "hessian": 1}
    assert not select(table, {"mnist": 2}).query("regularizer == 'hessian'")["eligible"].any()


def test_selection_avoids_weights_with_a_diverged_seed():
    diverged = ("hessian", 3, 1, None, None)
    rows = [*NONE, ("hessian", 1, 0, 0.9, 0.2), ("hessian", 1, 1, 0.9, 0.2)]
    table = cells(*rows, ("hessian", 3, 0, 0.99, 0.9), diverged)
    assert chosen(table)["hessian"] == 1
    selection = select(table, {"mnist": 2}).set_index(["regularizer", "lam"])
    assert selection.loc[("hessian", 3), ["seeds", "complete"]].tolist() == [1, False]
    assert selection.loc[("hessian", 3), "validation_linf"] == pytest.approx(0.72)  # of seed 0
    assert chosen(cells(*NONE, diverged)) == {"none": 0, "hessian": 3}


def test_selected_weight_is_read_back(tmp_path):
    table = cells(*NONE, ("hessian", 0.1, 0, 0.98, 0.4), ("hessian", 0.3, 0, 0.98, 0.5))
    select(table, {"mnist": 2}).to_csv(tmp_path / "selection.csv", index=False)
    lams = selected_lams(tmp_path / "selection.csv", "mnist")
    assert lams["hessian"] == 0.3
    assert lams["none"] == 0


def measured(**columns):
    defaults = {"correct": True, "loss": 0.1, "margin": 1.0, "hessian_norm": 1.0, "converged": True}
    return pd.DataFrame(columns).assign(**{k: v for k, v in defaults.items() if k not in columns})


def test_predicted_radius_compared_with_what_an_attack_found():
    images = measured(
        predicted_radius=[0.5, 3.0, 1.0, 0.0, 9.0, 9.0],
        distance=[1.0, 2.0, 3.0, 4.0, 0.0, np.inf],
        loss=[0.1, 0.2, 0.3, 0.8, 2.0, 0.1],
        margin=[3.0, 1.0, 2.0, 4.0, -1.0, 5.0],
        hessian_norm=[4.0, 3.0, 2.0, 1.0, 9.0, 9.0],
        correct=[True, True, True, True, False, True],  # wrong, and never broken: not compared
    )
    result = compare_radius(images)
    assert result["compared"] == 4
    assert result["bound_holds"] == 3 / 4
    assert result["above_threshold"] == 1 / 4
    assert result["median_ratio"] == pytest.approx((0.5 + 1 / 3) / 2)
    assert result["spearman_hessian"] == pytest.approx(1)
    # ranks 2, 4, 3, 1 against 1, 2, 3, 4: 1 - 6 (1 + 4 + 0 + 9) / (4 (16 - 1))
    assert result["spearman_predicted"] == pytest.approx(1 - 6 * 14 / 60)
    assert result["spearman_loss"] == pytest.approx(-1)  # here, the larger the loss, the farther
    # ranks 3, 1, 2, 4
    assert result["spearman_margin"] == pytest.approx(1 - 6 * (4 + 1 + 1 + 0) / 60)


@pytest.mark.parametrize("infinite", [True, False])
def test_predicted_radius_may_be_infinite_or_constant(infinite):
    images = measured(predicted_radius=[np.inf if infinite else 1.0, 1.0], distance=[2.0, 1.0])
    result = compare_radius(images)
    assert result["bound_holds"] == (0.5 if infinite else 1)
    constant = ["spearman_hessian", "spearman_loss", "spearman_margin"]
    assert np.isnan([result[name] for name in constant]).all()
    assert np.isnan(result["spearman_predicted"]) != infinite


def test_distance_is_that_of_ddn_image_by_image():
    perturbations = pd.DataFrame(
        {
            "index": [7, 3, 3, 7],
            "attack": ["ddn", "ddn", "fmn", "ddn"],
            "norm": ["l2", "l2", "l2", "linf"],
            "distance": [1.5, np.inf, 0.1, 0.2],
        }
    )
    images = pd.DataFrame({"index": [3, 7, 9], "correct": [True, True, True]})
    joined = with_distance(images, perturbations)
    assert joined["distance"].tolist()[:2] == [np.inf, 1.5]
    assert np.isnan(joined["distance"][2])
    assert broken_images(joined)["index"].tolist() == [7]
    # of a cell that diverged
    empty = with_distance(images.iloc[:0].astype(object), perturbations.iloc[:0].astype(object))
    assert broken_images(empty).empty


def test_nothing_to_compare():
    images = measured(predicted_radius=[1.0], distance=[np.inf])
    result = compare_radius(images)
    assert result["compared"] == 0
    assert np.isnan(result["bound_holds"])


def test_description_of_curvature():
    values = pd.Series(range(101), dtype=float)
    images = measured(**{name: values for name in CURVATURE}, converged=values > 0)
    described = describe_curvature(images)
    assert described["n"] == 101
    assert described["converged"] == pytest.approx(100 / 101)
    for name in CURVATURE:
        assert [described[f"{name}_{q}"] for q in QUANTILES] == [5, 25, 50, 75, 95]
        assert described[f"{name}_mean"] == 50


def test_the_empty_table_of_a_diverged_cell_changes_no_type(tmp_path):
    rows = pd.DataFrame(
        {"index": [3], "dataset": ["digits"], "lam": [1.0], "robust": [True], "distance": [0.5]}
    )
    empty_table(list(rows)).to_parquet(tmp_path / "empty.parquet")
    both = pd.concat([rows, pd.read_parquet(tmp_path / "empty.parquet")])
    assert both.dtypes.to_dict() == rows.dtypes.to_dict()
    assert np.isfinite(both["distance"]).all()
