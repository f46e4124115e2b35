"""The verdicts on the paper's claims: which numbers lead to which words."""

import judge_claims as claims
import pandas as pd
import pytest

from input_hessian.experiment.tables import CELL

PENALTIES = {"none": "none", "gradient": "gradient", "hessian": "hessian", "pgd": "adversarial"}
COST = pd.DataFrame(
    [
        ("mnist", name, 0, time)
        for name, time in [("none", 10.0), ("gradient", 19), ("hessian", 48)]
    ],
    columns=["dataset", "regularizer", "round", "milliseconds"],
)


def cells(*statuses):
    table = pd.DataFrame(
        {"regularizer": "hessian", "status": statuses, "seed": range(len(statuses))}
    )
    return table.assign(dataset="mnist", lam=1.0, test_low=0.9, constant_accuracy=0.11)


def curvature(rows):
    columns = ["regularizer", "lam", "seed", "bound_holds", "spearman_predicted"]
    table = pd.DataFrame(rows, columns=columns).assign(dataset="mnist", n=200, compared=150)
    return table.assign(spearman_loss=0.3, spearman_margin=0.4)


def comparison(rows):
    columns = ["norm", "regularizer", "difference", "p_holm", "conclusion"]
    return pd.DataFrame(rows, columns=columns).assign(
        dataset="mnist", epsilons="[0.1, 0.2]", reference="hessian", family="gradient penalty",
        low=0.05, high=0.15, detectable=0.07, images=200, seeds=3, flagged="",
    )  # fmt: skip


MORE, LESS, NONE = "more robust", "less robust", "no difference shown"
SETTINGS = {"penalties": PENALTIES, "epsilons": {"mnist": {"linf": [0.1], "l2": [1.0, 2.0]}}}


def groups(accuracies=()):
    """Worst-case accuracies at both l2 radii, and others that the claims do not look at."""
    rows = [
        ("hessian", lam, attack, norm, epsilon, accuracy + offset)
        for lam, accuracy in enumerate(accuracies)
        for attack, norm, epsilon, offset in [
            ("worst", "l2", 1.0, 0.1),
            ("worst", "l2", 2.0, -0.1),
            ("worst", "l2", 3.0, -10 * accuracy),
            ("worst", "linf", 1.0, -10 * accuracy),
            ("pgd", "l2", 1.0, -10 * accuracy),
        ]
    ]
    columns = ["regularizer", "lam", "attack", "norm", "epsilon", "mean"]
    return pd.DataFrame(rows, columns=columns).assign(dataset="mnist")


def judge(table, cost=None, curvature=None, path=None, comparison=None, settings=SETTINGS):
    return claims.judge(table, cost, curvature, path, comparison, groups(), settings)


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
    rows = comparison([("linf", "gradient", 0.1, 0.001, MORE)])
    # on a data set where plain training does no better, differences say nothing
    for plain, expected in ((0.1, "not tested"), (0.9, "holds partly")):
        baseline = cells("finished").assign(regularizer="none", test_low=plain)
        judged = judge(pd.concat([cells("finished"), baseline]), COST, comparison=rows)
        assert judged["verdict"][2] == expected


@pytest.mark.parametrize(
    ("shares", "correlations", "expected"),
    [
        ([0.96, 1.0], [0.8, 0.82], "holds"),
        ([0.94, 1.0], [0.8, 0.82], "holds partly"),  # an order, but no bound
        ([1.0, 1.0], [-0.4, 0.5], "holds partly"),  # a bound, but no order
        ([0.1, 0.1], [-0.4, 0.5], "does not hold"),
        # above 0.4, what the margin alone gives, but Student's interval of two seeds reaches below zero
        ([0.1, 0.1], [0.3, 0.7], "does not hold"),
        ([0.1, 0.1], [0.38, 0.39], "does not hold"),  # the margin orders the images better
        ([0.1, 0.1], [0.41, 0.40], "holds partly"),
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


def test_loss_and_margin_stand_beside_the_radius_and_so_does_the_path():
    rows = curvature([("hessian", 1.0, seed, 1.0, 0.8) for seed in (0, 1)])
    rows["spearman_loss"] = [0.5, 0.6]
    path = pd.DataFrame({"bound_holds": [1.0, 0.999], "margin_bound_holds": [0.98, 1.0]})
    path = path.assign(dataset="mnist", regularizer=["hessian", "none"], lam=[1.0, 0.0])
    path = path.assign(tightness=[0.4, 0.6], margin_tightness=[0.7, 0.5])
    verdict, evidence = claims.bounds(
        rows, path, {"mnist": "across networks", "digits": "not here"}
    )
    assert verdict == "holds"
    assert "of the loss alone 0.55 to 0.55, of the margin alone 0.40 to 0.40" in evidence
    assert "the bound holds on 99.9% of the images or more, and is 0.40 to 0.60" in evidence
    assert "that of the margin holds on 98.0% or more, and is 0.50 to 0.70 of it" in evidence
    assert evidence.count("across networks") == 1
    assert "not here" not in evidence
    # along the path it is a theorem: it has no say in the verdict
    assert claims.bounds(rows, path.assign(bound_holds=0.0))[0] == "holds"


def test_networks_are_ordered_by_their_norms():
    """Of four groups, the mean norm of H falls as accuracy rises, its median rises, g says nothing."""
    norms = {"hessian_norm_mean": [4.0, 3, 2, 1], "hessian_norm_median": [1.0, 2, 3, 4]}
    norms |= {"gradient_norm_mean": [2.0, 1, 4, 3], "gradient_norm_median": [3.0, 4, 1, 2]}
    # and a fifth group, flat and useless, says nothing
    norms = {name: [*values, 0.0] for name, values in norms.items()}
    table = pd.DataFrame(norms).assign(dataset="mnist", regularizer="hessian", lam=range(5), seed=0)
    trained = table[CELL].assign(test_low=[0.9] * 4 + [0.1], constant_accuracy=0.11)

    def across(*robust):
        return claims.across_networks(table, groups([*robust]), trained, SETTINGS["epsilons"])

    found = across(0.3, 0.4, 0.5, 0.6, 0.1)
    assert found.keys() == {"mnist"}
    # Spearman's of 2 1 4 3 with 1 2 3 4 is 1 - 6 * 4 / (4 * 15) = 0.6
    assert "mean ‖H‖ -1.00, median ‖H‖ 1.00, mean ‖g‖ 0.60, median ‖g‖ -0.60" in found["mnist"]
    # three points say too little
    assert across(0.3, 0.4, 0.5) == across() == {}


@pytest.mark.parametrize(
    ("conclusions", "expected"),
    [
        ([MORE, MORE], "holds"),
        ([MORE, NONE], "holds partly"),
        ([MORE, LESS], "does not hold"),
        ([LESS, NONE], "does not hold"),
        ([NONE, NONE], "not shown"),
    ],
)
def test_robustness_is_judged_by_the_words_of_the_comparison(conclusions, expected):
    rows = [
        (norm, "gradient", 0.1, 0.5, words)
        for norm, words in zip(("linf", "l2"), conclusions, strict=True)
    ]
    rows += [("l2", "pgd", -0.3, 1e-9, LESS)]  # another family
    rows += [("linf", "gradient", -0.3, float("nan"), "not tested")]
    verdict, evidence = claims.more_robust(comparison(rows), ["gradient"], 2)
    assert verdict == expected
    assert f"more robust in {conclusions.count(MORE)} of 2 contrasts" in evidence
    assert f"less robust in {conclusions.count(LESS)} (" in evidence
    assert len(evidence.split("\n")) == 3
    for line, words in zip(evidence.split("\n")[1:], conclusions, strict=True):
        said = "no difference from gradient shown" if words == NONE else f"{words} than gradient"
        assert said in line
        assert ("7.0 would have been found" in line) == (words == NONE)


def test_flagged_networks_and_missing_contrasts_are_told():
    rows = comparison([(norm, "gradient", 0.1, 0.01, MORE) for norm in ("linf", "l2")])
    rows.loc[0, "flagged"] = "hessian 3: pgd_gap"
    verdict, evidence = claims.more_robust(rows, ["gradient"], 2)
    assert verdict == "holds"
    assert "Flagged by checks for gradient masking: hessian 3: pgd_gap." in evidence
    assert claims.more_robust(rows, ["gradient"], 4)[0] == "holds partly"


def test_every_claim_has_its_line_also_without_a_comparison():
    rows = comparison([("l2", "gradient", 0.1, 0.01, MORE)])
    radius = curvature([("hessian", 1.0, 0, 1.0, 0.8)])
    for measure in ("mean", "median"):
        radius = radius.assign(**{f"{of}_norm_{measure}": 1.0 for of in ("hessian", "gradient")})
    table = judge(cells("finished"), COST, radius, comparison=rows)
    # one contrast of the two that there should be
    assert table["verdict"].tolist() == ["holds", "holds", "holds partly", "not tested"]
    text = claims.to_markdown(table)
    assert text.count("\n- **") == 3
    assert "\n  - MNIST, l2 0.1, 0.2: more robust than gradient (+10.0 points [5.0, 15.0]" in text
    assert "p = 0.010" in text


@pytest.mark.parametrize(("p", "text"), [(1e-9, "< 0.001"), (0.001, "= 0.001"), (1.0, "= 1.000")])
def test_p_values_in_a_sentence(p, text):
    assert claims.p_text(p) == text


def test_what_was_not_computed_is_not_tested():
    table = judge(cells("finished", "finished"))
    assert table["verdict"].tolist() == ["holds", "not tested", "not tested", "not tested"]
    assert "cost of a training step was not measured" in table["evidence"][0]
    without_ddn = curvature([("hessian", 1.0, 0, 1.0, 0.8)]).drop(columns="compared")
    assert claims.bounds(without_ddn)[0] == "not tested"


def test_what_is_not_the_penalty_of_the_claims_says_nothing_about_them():
    rows = [("l2", "gradient", 0.1, 0.01, MORE)]
    taylor = comparison(rows).assign(reference="taylor")
    penalties = {"none": "none", "gradient": "gradient", "taylor": "taylor"}
    others = cells("finished").assign(regularizer="taylor")
    table = judge(others, comparison=taylor, settings=SETTINGS | {"penalties": penalties})
    assert table["verdict"].tolist() == ["not tested"] * 4
    assert "No network was trained with the penalty" in table["evidence"][0]
    assert table["evidence"][2] == "Nothing to compare."


def test_networks_from_elsewhere_change_no_verdict():
    norms = {
        f"{of}_norm_{kind}": 1.0 for of in ("hessian", "gradient") for kind in ("mean", "median")
    }
    radius = curvature([("hessian", 1.0, 0, 0.99, 0.8)]).assign(**norms)
    mine = curvature([("mine", 0.0, 0, 0.1, -0.5)]).assign(**norms)
    others = cells("finished", "diverged").assign(regularizer="mine", lam=0.0)
    alone = judge(cells("finished"), curvature=radius)
    beside = judge(pd.concat([cells("finished"), others]), curvature=pd.concat([radius, mine]))
    pd.testing.assert_frame_equal(alone, beside)
    assert alone["verdict"][1] == "holds"


def test_radii_of_images_that_nothing_broke_are_not_judged():
    rows = curvature([("hessian", 1.0, 0, float("nan"), float("nan"))])
    assert claims.bounds(rows) == ("not tested", "No image was classified correctly and broken.")
