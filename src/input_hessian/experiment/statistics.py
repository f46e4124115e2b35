"""Intervals over seeds and test images, and the points at which two regularizers are compared."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from input_hessian.experiment.errors import UserError


class Interval(NamedTuple):
    """A mean and the bounds of its confidence interval; bounds are NaN where there is none."""

    mean: float
    low: float
    high: float


def t_interval(
    values: Sequence[float],
    confidence: float = 0.95,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:
    """Return the mean of a few seeds with Student's t interval, ``mean +- t(n - 1) s / sqrt(n)``.

    Args:
        values: one number per seed.
        confidence: coverage if the numbers are independent and normal.
        bounds: that no mean can exceed, as -1 and 1 of correlations.  The interval is cut there, which
            excludes no possible mean and so leaves its coverage as it is.

    Returns:
        The mean and its bounds.  One value has no spread: its bounds are NaN.

    Raises:
        UserError: without values, or if one is not finite.
    """
    values = np.asarray(values, dtype=float)
    if values.size == 0 or not np.isfinite(values).all():
        raise UserError(f"t_interval: expected at least one finite number, got {values.tolist()}")
    mean = float(values.mean())
    if len(values) == 1:
        return Interval(mean, math.nan, math.nan)
    error = stats.t.ppf((1 + confidence) / 2, len(values) - 1) * stats.sem(values)
    return Interval(mean, max(bounds[0], mean - error), min(bounds[1], mean + error))


def relative_cost(cost: pd.DataFrame) -> pd.DataFrame:
    """Return the quartiles of the time of a step as a multiple of plain training's, per regularizer.

    The ratio is taken within each round of the interleaved measurement, so that what slows the
    machine down for a while cancels; the training times of the cells were taken at different times.

    Args:
        cost: rows ``dataset, regularizer, round, milliseconds``.

    Returns:
        Columns 0.25, 0.5 and 0.75, indexed by ``dataset`` and ``regularizer`` in their order of
        appearance.
    """
    times = cost.pivot(index=["dataset", "round"], columns="regularizer", values="milliseconds")
    ratios = times.div(times["none"], axis=0).melt(
        ignore_index=False, var_name="regularizer", value_name="ratio"
    )
    ratios = ratios.dropna().groupby(["dataset", "regularizer"])["ratio"]
    quartiles = ratios.quantile([0.25, 0.5, 0.75]).unstack()
    order = cost[["dataset", "regularizer"]].drop_duplicates()
    return quartiles.loc[pd.MultiIndex.from_frame(order)]


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return p-values adjusted by Holm's step-down method (Holm 1979), in the given order.

    Rejecting where the adjusted value is at most 0.05 keeps the probability of any false rejection
    among all of them at 5%, whatever their dependence.
    """
    p_values = np.asarray(p_values, dtype=float)
    order = np.argsort(p_values)
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * p_values[order]))
    return adjusted


class Contrast(NamedTuple):
    """What is known of a mean robust accuracy, or of the difference of two, from images and seeds.

    Attributes:
        mean: the accuracy or the difference.
        low: lower bound of its interval.
        high: upper bound.
        p_value: of the null hypothesis that the mean is zero, not adjusted for other comparisons.
        detectable: the smallest true difference that such a test finds with a probability of 80%.
        images: number of images.
        seeds: networks in the smallest group.
    """

    mean: float
    low: float
    high: float
    p_value: float
    detectable: float
    images: int
    seeds: int


def contrast(
    first: np.ndarray, second: np.ndarray | None = None, confidence: float = 0.95
) -> Contrast:
    """Return the mean of what networks withstood, or its difference to that of a second group.

    Images and seeds are both samples, and every network sees every image, so both are crossed
    random effects: the outcome on image i of the network with seed s in group g is modelled as
    ``mean_g + image_gi + seed_gs + rest_gsi``.  The variance of the mean (or difference) has two
    parts::

        images:  Var_i(d_i) / n,   d_i the mean over seeds on image i, or the difference of two
        seeds:   sum over g of max(0, MS_seed - MS_rest) / (n S_g)

    with the mean squares of the two-way analysis of variance of each group (``MS_rest`` is taken
    off because the first part holds it already).  The interval is Student's, with Satterthwaite's
    degrees of freedom (1946): few seeds widen it as they must, which resampling three seeds does
    not (a bootstrap's variance of them is too small by a third, and its quantiles know no t).
    The image part gets pseudo-images, so that networks that never err or never disagree do not get
    an interval of width zero: two that are withstood and two that are not (Agresti and Coull 1998),
    or of a difference two, half of one in each of the four outcomes of a pair (Agresti and Min 2005).
    Seeds are not paired: a seed means the same initial weights in both groups, but not a comparable
    training; a seed that diverged is then simply missing.

    Where a group has one network only, nothing is known about its seeds; the interval then
    accounts for images alone and speaks about these networks.

    Args:
        first: ``[seeds, images]`` in [0, 1]: whether the network of this seed withstood all attacks
            on the image, or in which share of several cases.
        second: ``[seeds, images]``, the same images in the same order.
        confidence: coverage of the interval.

    Raises:
        UserError: if the groups do not hold the same two or more images.
    """
    given = [first] if second is None else [first, second]
    groups = [np.atleast_2d(np.asarray(group, dtype=float)) for group in given]
    shapes = [group.shape for group in groups]
    n = shapes[0][1]
    finite = all(np.isfinite(group).all() for group in groups)
    if n < 2 or not finite or any(seeds < 1 or images != n for seeds, images in shapes):
        raise UserError(
            "contrast: expected [seeds, images], with the same two or more images and at least one "
            f"seed in each group, all of them finite, got {' and '.join(map(str, shapes))}"
            f"{'' if finite else ' with missing values'}"
        )
    if second is None:
        by_image = groups[0].mean(0)
        pseudo_images, total, squares, bounds = 4, 2.0, 2.0, (0.0, 1.0)
    else:
        by_image = groups[0].mean(0) - groups[1].mean(0)
        pseudo_images, total, squares, bounds = 2, 0.0, 1.0, (-1.0, 1.0)
    all_images = n + pseudo_images
    centre = (by_image.sum() + total) / all_images
    mean_square = ((by_image**2).sum() + squares) / all_images
    variance = image_variance = (mean_square - centre**2) / all_images
    spread = image_variance**2 / (n - 1)
    if min(map(len, groups)) > 1:
        for group in groups:
            seeds, rest = _seed_mean_squares(group)
            variance += max(0.0, seeds - rest) / (n * len(group))
            spread += (seeds / (n * len(group))) ** 2 / (len(group) - 1)
    freedom, error = variance**2 / spread, math.sqrt(variance)
    two_sided = stats.t.ppf((1 + confidence) / 2, freedom)
    return Contrast(
        mean=float(by_image.mean()),
        low=float(max(bounds[0], centre - two_sided * error)),
        high=float(min(bounds[1], centre + two_sided * error)),
        p_value=2 * float(stats.t.sf(abs(centre) / error, freedom)),
        detectable=float((two_sided + stats.t.ppf(0.8, freedom)) * error),
        images=n,
        seeds=min(map(len, groups)),
    )


def _seed_mean_squares(group: np.ndarray) -> tuple[float, float]:
    """Return the mean squares of seeds and of the rest, of ``[seeds, images]`` without replicates."""
    seeds, n = group.shape
    by_seed, by_image = group.mean(1, keepdims=True), group.mean(0, keepdims=True)
    rest = group - by_seed - by_image + group.mean()
    return (
        float(n * ((by_seed - group.mean()) ** 2).sum() / (seeds - 1)),
        float((rest**2).sum() / ((seeds - 1) * (n - 1))),
    )


class CurvePoint(NamedTuple):
    """A point of a piecewise linear curve, between two of its corners.

    Attributes:
        low: position of the corner before it.
        high: position of the corner behind it.
        weight: of the second corner, in [0, 1]; that of the first is ``1 - weight``.
    """

    low: int
    high: int
    weight: float


def best_point(errors: Sequence[float], robust: Sequence[float], most: float) -> CurvePoint:
    """Return the point of largest robust accuracy on a curve, at a clean error of at most ``most``.

    The corners of the curve are networks, in the order of their lam.  A point between two of them is
    a classifier as well: for each image a coin decides which of the two answers, and both accuracies
    are then the linear interpolation.

    Args:
        errors: clean error of each corner.
        robust: robust accuracy of each corner.
        most: the largest error allowed.

    Raises:
        UserError: if every corner has a larger error.
    """
    errors = list(errors)
    points = [CurvePoint(i, i, 0.0) for i, error in enumerate(errors) if error <= most]
    if not points:
        raise UserError(
            f"best_point: expected a clean error of at most {most:g}, got at least {min(errors):g}"
        )
    for i, (here, there) in enumerate(itertools.pairwise(errors)):
        if min(here, there) < most < max(here, there):
            points.append(CurvePoint(i, i + 1, (most - here) / (there - here)))
    return max(points, key=lambda p: (1 - p.weight) * robust[p.low] + p.weight * robust[p.high])
