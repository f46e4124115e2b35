"""The verdicts on the paper's claims: which numbers lead to which words."""

import judge_claims as claims
import pandas as pd
import pytest

PENALTIES = {"none": "none", "gradient": "gradient", "hessian": "hessian", "pgd": "adversarial"}
COST = pd.DataFrame(
    [
        ("mnist", name, 0, time)
        for name, time in [("none", 10.0), ("gradient", 19), ("hessian", 48)]
    ],
    columns=["dataset", "regularizer", "round", "milliseconds"],
)


def cells(*statuses):
    table = pd.DataFrame({"regularizer": "hessian", "status": statuses})
    return table.assign(dataset="mnist", lam=1.0, test_low=0.9, constant_accuracy=0.11)


def curvature(rows):
    columns = ["regularizer", "lam", "seed", "bound_holds", "spearman_predicted"]
    return pd.DataFrame(rows, columns=columns).assign(dataset="mnist", n=200, compared=150)


def comparison(rows):
    columns = ["norm", "regularizer", "choice", "difference", "p_value"]
    return pd.DataFrame(rows, columns=columns).assign(
        dataset="mnist", epsilon=0.1, reference="hessian", reference_lam=1.0, lam=0.3, matched=True,
        robust_first=0.5, robust_second=0.4, low=0.05, high=0.15, images=200, seeds_first=3,
        p_holm=1.0,
    )  # fmt: skip


def test_cost_stands_beside_the_claim_that_training_is_feasible():
    verdict, evidence = claims.feasible(cells("finished", "finished"), COST, PENALTIES)
    assert verdict == "holds"
    assert "2 of 2 networks finished" in evidence
    assert "gradient 1.9 (1.9 to 1.9), hessian 4.8 (4.8 to 4.8)" in evidence
    assert claims.feasible(cells("finished", "diverged"), COST, PENALTIES)[0] == "holds partly"
    assert claims.feasible(cells("diverged"), COST, PENALTIES)[0] == "does not hold"


def test_networks_that_guess_one_class_are_not_trained():
    guessing = cells("finished", "finished")
    guessing.loc[0, "test_low"] = 0.1
    verdict, evidence = claims.feasible(guessing, COST, PENALTIES)
    assert verdict == "holds partly"
    assert "2 of 2 networks finished, 1 of them no better than guessing one class." in evidence
    rows = [("linf", "gradient", "matched", 0.1, 0.001)]
    for table, expected in ((guessing, "not tested"), (cells("finished"), "holds")):
        judged = claims.judge(table, COST, None, comparison(rows), PENALTIES)
        assert judged["verdict"][2] == expected


@pytest.mark.parametrize(
    ("shares", "correlations", "expected"),
    [
        ([0.96, 1.0], [0.8, 0.82], "holds"),
        ([0.94, 1.0], [0.8, 0.82], "holds partly"),  # an order, but no bound
        ([1.0, 1.0], [-0.4, 0.5], "holds partly"),  # a bound, but no order
        ([0.1, 0.1], [-0.4, 0.5], "does not hold"),
        # both positive, but Student's interval of two seeds reaches below zero
        ([0.1, 0.1], [0.1, 0.5], "does not hold"),
    ],
)
def test_radius_is_judged_as_a_bound_and_as_an_order(shares, correlations, expected):
    rows = [("gradient", 1.0, seed, 1.0, 0.9 + 0.01 * seed) for seed in (0, 1)]
    rows += [
        ("hessian", 1.0, seed, *pair)
        for seed, pair in enumerate(zip(shares, correlations, strict=True))
    ]
    verdict, evidence = claims.bounds(curvature(rows))
    assert verdict == expected
    assert "100% (gradient 1)" in evidence or expected == "holds"


def test_one_weak_seed_is_not_averaged_away():
    rows = [("hessian", 1.0, 0, 0.90, 0.8), ("hessian", 1.0, 1, 1.0, 0.81)]  # mean exactly 0.95
    assert claims.bounds(curvature(rows))[0] == "holds partly"


@pytest.mark.parametrize(
    ("differences", "p_values", "expected"),
    [
        ([0.1, 0.1], [0.01, 0.02], "holds"),
        ([0.1, 0.1], [0.01, 0.2], "holds partly"),
        ([0.1, 0.1], [0.03, 0.04], "not shown"),  # each below 0.05, but not adjusted for two
        ([0.1, -0.1], [0.01, 0.02], "does not hold"),
        ([-0.1, -0.1], [0.01, 0.9], "does not hold"),
        ([-0.1, 0.1], [0.3, 0.9], "not shown"),
    ],
)
def test_robustness_is_judged_by_significant_differences(differences, p_values, expected):
    rows = [
        (norm, "gradient", "selected and matched", *pair)
        for norm, *pair in zip(("linf", "l2"), differences, p_values, strict=True)
    ]
    # neither another penalty nor networks of other clean accuracies have a say
    rows += [("l2", "pgd", "matched", -0.3, 1e-9), ("l2", "gradient", "selected", -0.3, 1e-9)]
    rows += [("l2", "gradient", "closest", -0.3, 1e-9)]
    table = comparison(rows)
    table["matched"] = table["choice"].str.contains("matched")
    verdict, evidence = claims.more_robust(table, ["gradient"])
    assert verdict == expected
    assert "of 2 comparisons" in evidence
    assert evidence.count("†: no λ") == 1


def test_every_claim_has_its_line_also_without_a_comparison():
    rows = [("l2", "gradient", "matched", 0.1, 0.01)]
    table = claims.judge(
        cells("finished"), COST, curvature([("hessian", 1.0, 0, 1.0, 0.8)]), comparison(rows), PENALTIES
    )  # fmt: skip
    assert table["verdict"].tolist() == ["holds", "holds", "holds", "not tested"]
    text = claims.to_markdown(table)
    assert text.count("\n- **") == 3
    assert "\n  - MNIST l2 0.1: gradient 0.3 40.0 and hessian 1 50.0, +10.0" in text
    assert "Significantly better in 1 of 1 comparisons at equal clean accuracy" in text


def test_what_was_not_computed_is_not_tested():
    table = claims.judge(cells("finished", "finished"), None, None, None, PENALTIES)
    assert table["verdict"].tolist() == ["holds", "not tested", "not tested", "not tested"]
    assert "cost of a training step was not measured" in table["evidence"][0]
    without_ddn = curvature([("hessian", 1.0, 0, 1.0, 0.8)]).drop(columns="compared")
    assert claims.bounds(without_ddn)[0] == "not tested"


def test_what_is_not_the_penalty_of_the_claims_says_nothing_about_them():
    rows = [("l2", "gradient", "matched", 0.1, 0.01)]
    taylor = comparison(rows).assign(reference="taylor")
    penalties = {"none": "none", "gradient": "gradient", "taylor": "taylor"}
    others = cells("finished").assign(regularizer="taylor")
    table = claims.judge(others, None, None, taylor, penalties)
    assert table["verdict"].tolist() == ["not tested"] * 4
    assert "No network was trained with the penalty" in table["evidence"][0]
    assert table["evidence"][2] == "Nothing to compare."


def test_radii_of_images_that_nothing_broke_are_not_judged():
    rows = curvature([("hessian", 1.0, 0, float("nan"), float("nan"))])
    assert claims.bounds(rows) == ("not tested", "No image was classified correctly and broken.")
