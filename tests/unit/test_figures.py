"""What the figures draw of the tables: which rows, which intervals, which names and colours."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from test_tables import script

autoattack, headline, surface = map(
    script, ("plot_autoattack", "plot_headline", "plot_loss_surface")
)
plotting = script("plotting")
RUN = ["none", *plotting.REGULARIZERS]


def robustness(rows):
    columns = ["dataset", "regularizer", "lam", "seed", "attack", "epsilon", "robust_accuracy"]
    return pd.DataFrame(rows, columns=columns).assign(norm="linf", low=0.1, high=0.9)


def selection(*rows):
    return pd.DataFrame(rows, columns=["dataset", "regularizer", "lam", "selected"])


def test_headline_draws_the_worst_case_of_selected_weights_with_the_interval_over_seeds():
    chosen = selection(("mnist", "hessian", 1.0, False), ("mnist", "hessian", 3.0, True))
    rows = [
        ("mnist", "hessian", lam, seed, attack, epsilon, accuracy)
        for lam, attack, epsilon, accuracies in [
            (3.0, "ensemble", 0.2, (0.5, 0.51, 0.52)),
            (3.0, "ensemble", 0.1, (0.7, 0.7, 0.7)),
            (3.0, "worst", 0.2, (0.9, 0.9, 0.9)),
            (1.0, "ensemble", 0.2, (0.8, 0.8, 0.8)),
        ]
        for seed, accuracy in enumerate(accuracies)
    ]
    table = headline.selected_curves(robustness(rows), chosen)
    assert table["epsilon"].tolist() == [0.1, 0.2]
    assert table["mean"].tolist() == pytest.approx([0.7, 0.51])
    # t(0.975, 2) = 4.3027, standard error 0.01 / sqrt(3)
    assert table["high"][1] == pytest.approx(0.51 + 4.3027 * 0.01 / 3**0.5, abs=1e-6)
    assert table["low"][1] == pytest.approx(0.51 - 4.3027 * 0.01 / 3**0.5, abs=1e-6)


def test_headline_has_no_band_for_one_seed():
    rows = robustness([("mnist", "none", 0.0, 0, "ensemble", 0.1, 0.5)])
    table = headline.selected_curves(rows, selection(("mnist", "none", 0.0, True)))
    assert table["mean"].tolist() == [0.5]
    assert table[["low", "high"]].isna().all(axis=None)


def test_legend_states_the_weight_of_each_dataset_where_they_differ():
    rows = [
        ("mnist", "none", 0.0),
        ("mnist", "gradient", 3.0),
        ("mnist", "taylor", 1.0),
        ("mnist", "hessian-paper", 1.0),
        ("fashion_mnist", "none", 0.0),
        ("fashion_mnist", "gradient", 0.3),
        ("fashion_mnist", "taylor", 1.0),
    ]
    assert headline.labels(pd.DataFrame(rows, columns=headline.KEYS)) == {
        "none": "none",
        "gradient": "gradient, λ = 3 / 0.3",
        "taylor": "taylor, λ = 1",
        "hessian-paper": "hessian-paper, λ = 1 / \N{EN DASH}",
    }


def test_attacks_are_shown_by_what_they_overlook():
    columns = ["dataset", "norm", "epsilon", "regularizer", "lam", "attack", "mean"]
    rows = [
        ("mnist", "linf", 0.2, "none", 0.0, "fgsm", 0.5),
        ("mnist", "linf", 0.2, "none", 0.0, "apgd-t", 0.22),
        ("mnist", "linf", 0.2, "none", 0.0, "ensemble", 0.2),
        ("mnist", "l2", 2.0, "none", 0.0, "ddn", 0.4),
        ("mnist", "l2", 2.0, "none", 0.0, "ensemble", 0.4),
    ]
    wide = autoattack.above_worst_case(pd.DataFrame(rows, columns=columns))
    assert wide["norm"].tolist() == ["linf", "l2"]  # as in the table
    assert wide["ensemble"].tolist() == pytest.approx([20, 40])
    assert wide["fgsm"].tolist() == pytest.approx([30, np.nan], nan_ok=True)
    assert wide["apgd-t"].tolist() == pytest.approx([2, np.nan], nan_ok=True)
    assert wide["ddn"].tolist() == pytest.approx([np.nan, 0], nan_ok=True)
    assert wide["square"].isna().all()


def test_surface_shows_the_image_of_median_margin_among_those_most_networks_get_right():
    correct = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 1], [0, 0, 1, 0]], dtype=torch.bool)
    margins = torch.tensor([-9.0, 5.0, 3.0, 4.0])
    assert surface.choose_image(correct, margins) == 3  # two votes for images 1, 2 and 3
    assert surface.choose_image(correct[:1], margins) == 3  # images 0, 1 and 3
    assert surface.choose_image(correct[2:], margins) == 2
    nobody = torch.zeros(2, 4, dtype=torch.bool)
    assert surface.choose_image(nobody, margins) == 2  # the lower of 3 and 4


def test_regularizers_look_the_same_whichever_of_them_a_figure_shows():
    whole = plotting.regularizer_styles(RUN)
    for names in (
        RUN[::-1],
        ["adversarial-l2", "none"],
        [name for name in RUN if name != "taylor"],
    ):
        styles = plotting.regularizer_styles(names)
        assert styles == {name: whole[name] for name in {"none", *names}}


def test_no_two_regularizers_look_alike_and_neither_do_variants_of_ones_own():
    styles = plotting.regularizer_styles([*RUN, "mine", "mine-too"])
    assert len(styles) == len(RUN) + 2
    for first, second in itertools.combinations(styles.values(), 2):
        assert (first["color"], first["marker"]) != (second["color"], second["marker"])
    colours = [styles[name]["color"] for name in RUN]
    assert len(set(colours)) == len(RUN)


def test_title_of_a_panel_states_the_weight_if_there_is_one():
    table = pd.DataFrame(
        [("none", 0.0), ("hessian", 0.1), ("hessian", 1.0), ("cure", 10.0), ("cure", 10.0)],
        columns=["regularizer", "lam"],
    )
    titles = {"none": "none", "hessian": "hessian", "cure": "cure\nλ = 10"}
    assert plotting.panel_titles(table) == titles
