import itertools

import numpy as np
import pytest
from scipy import stats

from input_hessian.experiment.statistics import (
    CurvePoint,
    best_point,
    contrast,
    holm,
    t_interval,
)

ONE_RADIUS, TWO_RADII = [(0.9,), (0.6,)], [(0.9, 0.1), (0.6, -0.4)]


def outcomes(rng, seeds, shifts, *, seed_sd, rest_sd, shared):
    """Draw [seeds, images] from crossed random effects; ``shared`` is the images' effect.

    An outcome is the share of the radii, each with its shift, at which the latent is above zero.
    """
    latent = shared + seed_sd * rng.standard_normal((seeds, 1))
    latent = latent + rest_sd * rng.standard_normal((seeds, len(shared)))
    return np.mean([latent + shift > 0 for shift in shifts], axis=0)


def of_images(shares):
    """Turn shares of the images into outcomes, one seed: ``{1: 3, 0: 1}`` is 1, 1, 1, 0."""
    return np.repeat(list(shares), list(shares.values())).astype(float)


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


def test_an_interval_of_correlations_stays_within_their_bounds_and_loses_no_coverage():
    rng, cut = np.random.default_rng(0), 0
    for truth in (-0.99, -0.6, 0, 0.9, 0.999):
        for _ in range(100):
            values = np.tanh(np.arctanh(truth) + 0.3 * rng.standard_normal(2))
            whole, within = t_interval(values), t_interval(values, bounds=(-1, 1))
            assert within.mean == whole.mean
            assert -1 <= within.low <= within.mean <= within.high <= 1
            for mean in (truth, *np.linspace(-1, 1, 21)):
                assert (whole.low <= mean <= whole.high) == (within.low <= mean <= within.high)
            assert (whole.low > 0) == (within.low > 0)  # what the rule of C2 asks
            cut += whole.high > 1 or whole.low < -1
    assert cut > 100


def test_holm_steps_down():
    # sorted, 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.04; never decreasing
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1, 1])
    assert holm([]).size == 0


@pytest.mark.parametrize(
    ("seeds", "shifts", "seed_sd"),
    [
        ((1,), ONE_RADIUS, 0),
        ((3,), ONE_RADIUS, 0.1),
        ((3,), TWO_RADII, 0.3),
        ((1, 1), TWO_RADII, 0),
        ((2, 2), ONE_RADIUS, 0.1),
        ((3, 3), ONE_RADIUS, 0.1),
        ((3, 3), TWO_RADII, 0.3),
        ((3, 2), ONE_RADIUS, 0.3),
    ],
)
def test_interval_covers_the_truth(seeds, shifts, seed_sd):
    """New images and new seeds in every round; the truth is a mean of normal tails."""
    rng = np.random.default_rng(0)
    rest_sd, rounds, images = 0.5, 400, 300
    scale = np.sqrt(1 + seed_sd**2 + rest_sd**2)
    means = [stats.norm.cdf(np.divide(radii, scale)).mean() for radii in shifts]
    truth = means[0] - means[1] if len(seeds) == 2 else means[0]
    covered = 0
    for _ in range(rounds):
        shared = rng.standard_normal(images)
        groups = (
            outcomes(rng, n, radii, seed_sd=seed_sd, rest_sd=rest_sd, shared=shared)
            for n, radii in zip(seeds, shifts, strict=False)
        )
        found = contrast(*groups)
        covered += found.low <= truth <= found.high
    # 400 rounds at 95%: below 92% or above 98% happens in less than one such test of 100
    assert 0.92 < covered / rounds < 0.98


def test_ignoring_seeds_would_not_cover():
    """What the seeds' part is for: with networks that differ, images alone cover far too rarely."""
    rng = np.random.default_rng(1)
    narrow, wide = 0, 0
    for _ in range(100):
        shared = rng.standard_normal(1000)
        first, second = (
            outcomes(rng, 3, [0.5], seed_sd=0.3, rest_sd=0.5, shared=shared) for _ in range(2)
        )
        both = contrast(first, second)
        images = contrast(first.mean(0), second.mean(0))
        narrow += images.low <= 0 <= images.high
        wide += both.low <= 0 <= both.high
    assert narrow < 50
    assert wide >= 90


@pytest.mark.parametrize(("seeds", "seed_sd"), [(1, 0), (3, 0.1)])  # of one seed nothing is claimed
def test_false_alarms_are_as_rare_as_stated(seeds, seed_sd):
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(300):
        shared = rng.standard_normal(300)
        groups = (
            outcomes(rng, seeds, [0.5, -0.3], seed_sd=seed_sd, rest_sd=0.5, shared=shared)
            for _ in range(2)
        )
        alarms += contrast(*groups).p_value < 0.05
    assert 0.01 < alarms / 300 < 0.09


@pytest.mark.parametrize("seed_sd", [0.0, 0.01])  # images alone decide, or seeds do
def test_detectable_difference_is_found_four_times_in_five(seed_sd):
    rng = np.random.default_rng(3)
    images = 1000

    def draw(difference):
        shared = 0.2 * rng.standard_normal(images)
        groups = (
            0.4
            + shift
            + shared
            + seed_sd * rng.standard_normal((3, 1))
            + 0.1 * rng.standard_normal((1, images))
            + 0.1 * rng.standard_normal((3, images))
            for shift in (difference, 0)
        )
        return contrast(*groups)

    # The root of the mean square: few seeds estimate their spread badly, but without a bias.
    stated = np.sqrt(np.mean([draw(0).detectable ** 2 for _ in range(100)]))
    power = [
        np.mean([draw(part * stated).p_value < 0.05 for _ in range(200)]) for part in (0.5, 1, 1.5)
    ]
    assert power[0] < 0.5
    assert 0.7 < power[1] < 0.9
    assert power[2] > 0.9


def test_pairing_by_image_narrows_the_interval():
    rng = np.random.default_rng(3)
    first = rng.random(500) < 0.7
    second = first & (rng.random(500) < 0.95)
    paired = contrast(first, second)
    shuffled = contrast(first, rng.permutation(second))
    assert paired.mean == pytest.approx(shuffled.mean)
    assert paired.high - paired.low < 0.5 * (shuffled.high - shuffled.low)
    assert paired.p_value < shuffled.p_value
    assert paired.detectable < 0.5 * shuffled.detectable
    # unpaired, the textbook's two-proportion interval
    p, q = first.mean(), second.mean()
    width = 2 * 1.96 * np.sqrt((p * (1 - p) + q * (1 - q)) / 500)
    assert shuffled.high - shuffled.low == pytest.approx(width, rel=0.1)


def test_one_seed_is_agresti_and_coulls_interval_or_agresti_and_mins():
    first, second = np.zeros(100, dtype=bool), np.zeros(100, dtype=bool)
    first[:60] = True
    second[10:55] = True  # 15 images only the first withstands: 0-9 and 55-59
    second[60:64] = True  # 4 only the second
    t = stats.t.ppf([0.975, 0.8], 99)
    # Agresti & Coull 1998: 62 of 104
    one, centre = contrast(first), 62 / 104
    error = np.sqrt(centre * (1 - centre) / 104)
    assert (one.mean, one.images, one.seeds) == (0.6, 100, 1)
    assert (one.low, one.high) == pytest.approx((centre - t[0] * error, centre + t[0] * error))
    # Agresti & Min 2005: b* = 15.5, c* = 4.5, n* = 102
    both, centre = contrast(first, second), 11 / 102
    error = np.sqrt(20 - 11**2 / 102) / 102
    assert (both.mean, both.images, both.seeds) == (pytest.approx(0.11), 100, 1)
    assert (both.low, both.high) == pytest.approx((centre - t[0] * error, centre + t[0] * error))
    assert both.p_value == pytest.approx(2 * stats.t.sf(centre / error, 99))
    assert both.detectable == pytest.approx(t.sum() * error)


@pytest.mark.parametrize("compared", [True, False])
def test_interval_of_several_seeds_is_that_of_the_analysis_of_variance(compared):
    """Two networks that differ by a constant share: only the seeds' spread is left, and images'."""
    first = np.zeros((2, 8), dtype=bool)
    first[0, :6] = first[1, 4:6] = True  # accuracies 6/8 and 2/8
    second = np.zeros((2, 8), dtype=bool)
    second[:, :2] = True  # both 2/8, no spread
    if compared:
        found = contrast(first, second)
        by_image = np.array([-0.5, -0.5, 0.5, 0.5, 1, 1, 0, 0])
        centre, bounds = 0.2, (-1, 1)  # with half a pseudo-image of +1, half of -1, one of 0
        images = ((by_image**2).sum() + 1) / 100 - centre**2 / 10
    else:
        found = contrast(first)
        by_image = np.array([0.5, 0.5, 0.5, 0.5, 1, 1, 0, 0])
        centre, bounds = 0.5, (0, 1)  # with two pseudo-images of 1, two of 0
        images = ((by_image**2).sum() + 2) / 144 - centre**2 / 12
    # seeds of the first group: MS_seed = 8 * 2 * 0.25^2 = 1; the rest's sum of squares is
    # sum((y_0i - y_1i)^2)/2 - MS_seed = 4/2 - 1 = 1 with 7 degrees of freedom
    seeds = (1 - 1 / 7) / (8 * 2)
    freedom = (images + seeds) ** 2 / (images**2 / 7 + (1 / 16) ** 2 / 1)
    error, t = np.sqrt(images + seeds), stats.t.ppf([0.975, 0.8], freedom)
    expected = np.clip(centre + t[0] * error * np.array([-1, 1]), *bounds)
    assert (found.mean, found.images, found.seeds) == (by_image.mean(), 8, 2)
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert found.p_value == pytest.approx(2 * stats.t.sf(centre / error, freedom))
    assert found.detectable == pytest.approx(t.sum() * error)


def test_a_group_of_one_seed_speaks_about_these_networks():
    """Nothing is known about the seeds of one group, so those of the other are averaged over."""
    rng = np.random.default_rng(4)
    shared = rng.standard_normal(200)
    one, three = (
        outcomes(rng, n, [0.4, 0.9], seed_sd=0.5, rest_sd=0.5, shared=shared) for n in (1, 3)
    )
    found = contrast(one, three)
    assert found == pytest.approx(contrast(one[0], three.mean(0)))
    assert found.seeds == 1
    several = contrast(np.concatenate([one, three]), three)
    assert several.seeds == 3
    assert several.high - several.low > found.high - found.low


def test_equal_accuracies_of_networks_that_disagree_take_nothing_off():
    """The rest may exceed the seeds' mean square, zero here; no variance is negative."""
    first = np.array([[1, 1, 0, 0, 1, 0], [0, 0, 1, 1, 1, 0]])
    assert contrast(first)[:5] == pytest.approx(contrast(first.mean(0))[:5])


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_networks_that_never_disagree_prove_nothing(seeds, share):
    """Also those that never err: n images cannot show that none of them would fall."""
    same = np.tile(of_images({1: round(200 * share), 0: 200 - round(200 * share)}), (seeds, 1))
    equal = contrast(same, same)
    assert (equal.mean, equal.p_value) == (0, 1)
    assert -0.03 < equal.low < 0 < equal.high < 0.03
    assert equal.detectable > 0
    accuracy = contrast(same)
    assert accuracy.low <= accuracy.mean == share <= accuracy.high
    assert accuracy.high - accuracy.low > 0.01
    assert contrast(1 - same)[1:3] == pytest.approx((1 - accuracy.high, 1 - accuracy.low))


def test_interval_p_value_and_order_agree():
    rng = np.random.default_rng(5)
    decided = 0
    for _ in range(200):
        images, *seeds = rng.integers((2, 1, 1), (60, 4, 4))
        shift = rng.normal(0, 0.5)
        shared = rng.standard_normal(images)
        first, second = (
            outcomes(rng, n, radii, seed_sd=0.2, rest_sd=0.5, shared=shared)
            for n, radii in zip(seeds, ([0, 0.5], [shift, shift + 1]), strict=True)
        )
        there, back = contrast(first, second), contrast(second, first)
        assert (there.low <= 0 <= there.high) == (there.p_value > 0.05)
        assert -1 <= there.low <= there.mean <= there.high <= 1
        assert back[:3] == pytest.approx((-there.mean, -there.high, -there.low))
        assert back[3:] == pytest.approx(there[3:])
        narrow = contrast(first, second, confidence=0.5)
        assert there.low <= narrow.low < narrow.high <= there.high
        one = contrast(first)
        assert (one.low <= 0) == (one.p_value > 0.05)
        assert 0 <= one.low <= one.mean <= one.high <= 1
        decided += there.p_value <= 0.05
    assert 10 < decided < 190


def test_other_images_are_an_error():
    for first, second in (((2, 10), (2, 9)), ((0, 10), (2, 10)), ((2, 1), (2, 1))):
        with pytest.raises(ValueError, match="the same two or more images") as error:
            contrast(np.ones(first), np.ones(second))
        assert str(error.value).endswith(f"got {first} and {second}")
    for shape in ((2, 1), (0, 10)):
        with pytest.raises(ValueError, match="at least one seed in each group") as error:
            contrast(np.ones(shape))
        assert str(error.value).endswith(f"got {shape}")


def at(point, values):
    """A value of a piecewise linear curve, given those of its corners."""
    return (1 - point.weight) * values[point.low] + point.weight * values[point.high]


@pytest.mark.parametrize(
    ("errors", "robust", "most", "expected"),
    [
        ([0.01, 0.02, 0.03], [0.1, 0.4, 0.2], 0.05, CurvePoint(1, 1, 0)),  # a corner
        ([0.01, 0.02, 0.03], [0.1, 0.4, 0.5], 0.02, CurvePoint(1, 1, 0)),  # on the bound
        ([0.01, 0.03], [0.1, 0.5], 0.02, CurvePoint(0, 1, 0.5)),
        ([0.01, 0.03], [0.5, 0.1], 0.02, CurvePoint(0, 0, 0)),  # the penalty harms
        # crosses the bound three times, and is best where it does for the last time
        ([0.01, 0.05, 0.02, 0.08], [0, 0.5, 0.4, 0.9], 0.04, CurvePoint(2, 3, 1 / 3)),
        ([0.01, 0.05, 0.02, 0.08], [0, 0.5, 0.4, 0.4], 0.04, CurvePoint(1, 2, 1 / 3)),
        ([0.05, 0.01], [0.9, 0.1], 0.02, CurvePoint(0, 1, 0.75)),  # lam that lowers the error
    ],
)
def test_best_point_of_a_curve_drawn_by_hand(errors, robust, most, expected):
    point = best_point(errors, robust, most)
    assert (point.low, point.high, point.weight) == pytest.approx(tuple(expected))


def test_best_point_is_that_of_all_mixtures_of_neighbours():
    rng = np.random.default_rng(6)
    mixed, parts = 0, np.linspace(0, 1, 501)
    for _ in range(200):
        corners = rng.integers(2, 7)
        # of one digit, so that corners lie on the bound and beside each other as well
        errors, robust = rng.integers(0, 10, corners) / 10, rng.random(corners)
        most = max(rng.integers(2, 6) / 10, errors.min())
        point = best_point(errors, robust, most)
        assert point.high in (point.low, point.low + 1)
        assert 0 <= point.weight < 1
        assert at(point, errors) <= most + 1e-12
        best = 0
        for i, j in itertools.pairwise(range(corners)):
            on_grid = (1 - parts) * errors[i] + parts * errors[j] <= most
            line = (1 - parts) * robust[i] + parts * robust[j]
            best = max(best, line[on_grid].max(initial=0))
        assert at(point, robust) >= best - 1e-12
        mixed += point.weight > 0
    assert 30 < mixed < 170  # else it would be a test of corners, or of none


def test_a_curve_without_an_allowed_point_is_an_error():
    message = "best_point: expected a clean error of at most 0.01, got at least 0.02"
    with pytest.raises(ValueError, match=f"^{message}$"):
        best_point([0.05, 0.02, 0.3], [0.1, 0.2, 0.3], 0.01)
