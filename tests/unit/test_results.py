import pandas as pd
import pytest

from input_hessian.results import read_table, robust_accuracy, wilson_interval, worst_case


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
