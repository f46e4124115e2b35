import numpy as np
import pandas as pd
import pytest
from scipy import stats

from input_hessian.experiment.statistics import (
    compare_robustness,
    holm,
    mcnemar,
    over_seeds,
    t_interval,
)


def verdicts(rng, seeds, images, shift, *, seed_sd, rest_sd, shared):
    """Draw bool [seeds, images] from crossed random effects; ``shared`` is the images' effect."""
    latent = shift + shared + seed_sd * rng.standard_normal((seeds, 1))
    return latent + rest_sd * rng.standard_normal((seeds, images)) > 0


def test_t_interval_matches_a_table_of_student():
    # t(0.975, 2 degrees of freedom) = 4.3027; the values have s = 1, so the half width is t/sqrt(3)
    mean, low, high = t_interval([1.0, 2.0, 3.0])
    assert mean == 2
    assert high - mean == pytest.approx(4.3027 / np.sqrt(3), abs=1e-4)
    assert mean - low == pytest.approx(high - mean)
    assert t_interval([1.0, 2.0, 3.0], confidence=0.9).high == pytest.approx(
        2 + 2.9200 / 3**0.5, abs=1e-4
    )


def test_t_interval_of_one_or_equal_seeds():
    mean, low, high = t_interval([0.7])
    assert mean == 0.7
    assert np.isnan([low, high]).all()
    assert t_interval([0.5, 0.5]) == (0.5, 0.5, 0.5)
    for values in ([], [0.5, np.nan]):
        with pytest.raises(ValueError, match="at least one finite number"):
            t_interval(values)


def test_over_seeds_takes_seeds_if_there_are_several_and_images_if_not():
    rows = pd.DataFrame(
        {
            "lam": [1, 1, 1, 3, 3, 3, 10, 30, 30],
            "seed": [0, 1, 2, 0, 1, 2, 0, 0, 1],
            "robust_accuracy": [0.2, 0.5, 0.8, 0.98, 0.99, 1.0, 0.5, 0.4, 0.7],
            "low": 0.45,
            "high": 0.55,
        }
    )
    table = over_seeds(rows, ["lam"]).set_index("lam")
    assert table["seeds"].to_dict() == {1: 3, 3: 3, 10: 1, 30: 2}
    assert table.loc[10, ["mean", "low", "high"]].tolist() == [0.5, 0.45, 0.55]
    # t(0.975, 2) = 4.3027 times a standard error of 0.3 and of 0.01 over sqrt(3): cut to [0, 1]
    assert table.loc[1, ["mean", "low", "high"]].tolist() == [pytest.approx(0.5), 0, 1]
    assert table.loc[3, "low"] == pytest.approx(0.99 - 4.3027 * 0.01 / 3**0.5, abs=1e-5)
    assert table.loc[3, "high"] == 1
    # of two seeds, their range
    assert table.loc[30, ["mean", "low", "high"]].tolist() == [pytest.approx(0.55), 0.4, 0.7]
    with pytest.raises(ValueError, match="one row per seed"):
        over_seeds(pd.concat([rows, rows]), ["lam"])
    assert over_seeds(rows[:0], ["lam"]).empty


def test_mcnemar_is_the_exact_binomial_test():
    # Fagerland, Lydersen and Laake 2013, airway responses of 21 children: p = 0.070; by hand,
    # 2 (C(8, 0) + C(8, 1)) / 2^8
    assert mcnemar(1, 7) == pytest.approx(18 / 256)
    # sum over k <= 4 of C(20, k), over 2^19
    assert mcnemar(4, 16) == pytest.approx(6196 / 2**19)
    assert mcnemar(16, 4) == mcnemar(4, 16)
    assert mcnemar(3, 3) == 1
    assert mcnemar(0, 0) == 1


def test_holm_steps_down():
    # sorted, 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.04; never decreasing
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1, 1])
    assert holm([]).size == 0


@pytest.mark.parametrize(
    ("seeds", "seed_sd"), [((1, 1), 0.0), ((2, 2), 0.1), ((3, 3), 0.1), ((3, 2), 0.3)]
)
def test_interval_covers_the_true_difference(seeds, seed_sd):
    """New images and new seeds in every round; the truth is the difference of two normal tails."""
    rng = np.random.default_rng(0)
    shifts, rest_sd, rounds, images = (0.9, 0.6), 0.5, 400, 300
    scale = np.sqrt(1 + seed_sd**2 + rest_sd**2)
    truth = stats.norm.cdf(shifts[0] / scale) - stats.norm.cdf(shifts[1] / scale)
    covered = 0
    for _ in range(rounds):
        shared = rng.standard_normal(images)
        groups = (
            verdicts(rng, s, images, shift, seed_sd=seed_sd, rest_sd=rest_sd, shared=shared)
            for s, shift in zip(seeds, shifts, strict=True)
        )
        comparison = compare_robustness(*groups)
        covered += comparison.low <= truth <= comparison.high
    # 400 rounds at 95%: below 92% happens once in 200 such tests; conservative is allowed
    assert covered / rounds > 0.92


def test_ignoring_seeds_would_not_cover():
    """What the seeds' part is for: with networks that differ, images alone cover far too rarely."""
    rng = np.random.default_rng(1)
    images, narrow, wide = 1000, 0, 0
    for _ in range(100):
        shared = rng.standard_normal(images)
        first, second = (
            verdicts(rng, 3, images, 0.5, seed_sd=0.3, rest_sd=0.5, shared=shared) for _ in range(2)
        )
        both = compare_robustness(first, second)
        # the same verdicts without the spread of seeds: one pseudo-network of per-image means
        by_image = first.mean(0) - second.mean(0)
        error = 1.96 * by_image.std() / np.sqrt(images)
        narrow += abs(by_image.mean()) <= error
        wide += both.low <= 0 <= both.high
    assert narrow < 50
    assert wide >= 90


def test_false_alarms_are_as_rare_as_stated():
    rng = np.random.default_rng(2)
    for seeds in (1, 3):
        alarms = 0
        for _ in range(300):
            shared = rng.standard_normal(300)
            seed_sd = 0.1 if seeds > 1 else 0  # of one seed nothing is claimed
            groups = (
                verdicts(rng, seeds, 300, 0.5, seed_sd=seed_sd, rest_sd=0.5, shared=shared)
                for _ in range(2)
            )
            alarms += compare_robustness(*groups).p_value < 0.05
        assert alarms / 300 < 0.09


def test_pairing_by_image_narrows_the_interval():
    rng = np.random.default_rng(3)
    first = rng.random(500) < 0.7
    second = first & (rng.random(500) < 0.95)
    paired = compare_robustness(first, second)
    shuffled = compare_robustness(first, rng.permutation(second))
    assert paired.difference == pytest.approx(shuffled.difference)
    assert paired.high - paired.low < 0.5 * (shuffled.high - shuffled.low)
    assert paired.p_value < shuffled.p_value
    # unpaired, the textbook's two-proportion interval
    p, q = first.mean(), second.mean()
    width = 2 * 1.96 * np.sqrt((p * (1 - p) + q * (1 - q)) / 500)
    assert shuffled.high - shuffled.low == pytest.approx(width, rel=0.1)


def test_one_seed_each_is_mcnemar_with_agresti_and_mins_interval():
    first, second = np.zeros(100, dtype=bool), np.zeros(100, dtype=bool)
    first[:60] = True
    second[10:55] = True  # 15 images only the first withstands: 0-9 and 55-59
    second[60:64] = True  # 4 only the second
    result = compare_robustness(first, second)
    assert result.test == "McNemar"
    assert result.p_value == pytest.approx(mcnemar(15, 4))
    assert (result.only_first, result.only_second) == pytest.approx((0.15, 0.04))
    assert result.odds_ratio == pytest.approx(15 / 4)
    assert result.difference == pytest.approx(0.11)
    # Agresti & Min 2005: b* = 15.5, c* = 4.5, n* = 102
    centre = 11 / 102
    error = np.sqrt(20 - 11**2 / 102) / 102
    t = stats.t.ppf(0.975, 99)
    assert (result.low, result.high) == pytest.approx((centre - t * error, centre + t * error))


def test_interval_of_several_seeds_is_that_of_the_analysis_of_variance():
    """Two networks that differ by a constant share: only the seeds' spread is left, and images'."""
    first = np.zeros((2, 8), dtype=bool)
    first[0, :6] = first[1, 4:6] = True  # accuracies 6/8 and 2/8
    second = np.zeros((2, 8), dtype=bool)
    second[:, :2] = True  # both 2/8, no spread
    result = compare_robustness(first, second)
    assert (result.test, result.difference) == ("t", 0.25)
    by_image = np.array([-0.5, -0.5, 0.5, 0.5, 1, 1, 0, 0])
    images = ((by_image**2).sum() + 1) / 100 - (2 / 10) ** 2 / 10
    # seeds of the first group: MS_seed = 8 * 2 * 0.25^2 = 1; the rest's sum of squares is
    # sum((y_0i - y_1i)^2)/2 - MS_seed = 4/2 - 1 = 1 with 7 degrees of freedom
    seeds = (1 - 1 / 7) / (8 * 2)
    freedom = (images + seeds) ** 2 / (images**2 / 7 + (1 / 16) ** 2 / 1)
    t = stats.t.ppf(0.975, freedom)
    expected = 0.2 + t * np.sqrt(images + seeds) * np.array([-1, 1])
    assert (result.low, result.high) == pytest.approx(tuple(np.clip(expected, -1, 1)))
    statistic = 0.2 / np.sqrt(images + seeds)
    assert result.p_value == pytest.approx(2 * stats.t.sf(statistic, freedom))


def test_networks_that_never_disagree():
    same = np.arange(200) < 150
    result = compare_robustness(same, same)
    assert (result.difference, result.p_value) == (0, 1)
    assert result.low < 0 < result.high  # n images cannot prove equality
    assert result.high < 0.02
    assert np.isnan(result.odds_ratio)
    several = compare_robustness(np.stack([same] * 3), np.stack([same] * 3))
    assert several.p_value == 1
    assert several.low < 0 < several.high


def test_order_and_one_sided_disagreement():
    rng = np.random.default_rng(4)
    first, second = rng.random((3, 100)) < 0.8, rng.random((2, 100)) < 0.6
    there, back = compare_robustness(first, second), compare_robustness(second, first)
    assert back.difference == pytest.approx(-there.difference)
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))
    assert back.p_value == pytest.approx(there.p_value)
    assert there.only_first - there.only_second == pytest.approx(there.difference)
    assert compare_robustness(np.ones(10), np.arange(10) > 3).odds_ratio == np.inf


def test_other_images_are_an_error():
    for first, second in (((2, 10), (2, 9)), ((0, 10), (2, 10)), ((2, 1), (2, 1))):
        with pytest.raises(ValueError, match="the same two or more images"):
            compare_robustness(np.ones(first), np.ones(second))
