"""Means over seeds, and robust accuracies of two regularizers compared on the same test images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
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


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the mean of a few seeds with Student's t interval, ``mean +- t(n - 1) s / sqrt(n)``.

    Args:
        values: one number per seed.
        confidence: coverage if the numbers are independent and normal.

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
    return Interval(mean, mean - error, mean + error)


def over_seeds(
    rows: pd.DataFrame,
    by: list[str],
    value: str = "robust_accuracy",
    low: str = "low",
    high: str = "high",
) -> pd.DataFrame:
    """Return the mean accuracy over seeds with its 95% interval, per group.

    Three seeds or more: Student's t interval, cut to [0, 1], where every accuracy lies (which loses
    no coverage).  Two: their range, as t(1) = 12.7 makes of two an interval that says nothing.  One:
    the interval from its test images that the table already holds.

    Args:
        rows: one row per cell, with the columns named below and ``seed``.
        by: columns that name a group; within one, every seed stands once.
        value: column with the accuracy.
        low: column with the lower bound from the images of this one cell.
        high: column with the upper bound.

    Returns:
        Columns ``by`` and ``mean, low, high, seeds``, groups in their order of appearance.

    Raises:
        UserError: if a seed stands twice in a group.
    """
    if rows.duplicated([*by, "seed"]).any():
        raise UserError(f"over_seeds: expected one row per seed and {', '.join(by)}, got several")
    table = []
    for key, group in rows.groupby(by, sort=False):
        if len(group) == 1:
            interval = group[[value, low, high]].iloc[0]
        elif len(group) == 2:
            interval = group[value].mean(), group[value].min(), group[value].max()
        else:
            mean, lower, upper = t_interval(group[value])
            interval = mean, max(0.0, lower), min(1.0, upper)
        table.append([*key, *interval, len(group)])
    return pd.DataFrame(table, columns=[*by, "mean", "low", "high", "seeds"])


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


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided p-value of McNemar's exact test (McNemar 1947).

    Of the images on which two networks disagree, each is under the null hypothesis as likely to
    favour the one as the other: a binomial test with probability 1/2.

    Args:
        only_first: images that only the first network gets right.
        only_second: images that only the second gets right.

    Returns:
        The p-value; 1 where the networks never disagree.
    """
    disagreements = only_first + only_second
    return float(stats.binomtest(only_first, disagreements).pvalue) if disagreements else 1.0


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


@dataclass(frozen=True)
class Comparison:
    """Robust accuracy of a first group of networks minus that of a second, on the same images.

    Attributes:
        difference: of the mean robust accuracies.
        low: lower bound of its interval.
        high: upper bound.
        p_value: of the null hypothesis of no difference, not adjusted for other comparisons.
        test: ``"McNemar"`` for one network in each group, else ``"t"``.
        only_first: share of (image, network, network) that only the first of the two withstands.
        only_second: share that only the second withstands.
        odds_ratio: ``only_first / only_second``, the effect size that belongs to McNemar's test:
            how many times more images the first saves alone than the second does.  Infinite where
            the second saves none, NaN where neither does.
        images: number of images.
        seeds_first: networks in the first group.
        seeds_second: networks in the second group.
    """

    difference: float
    low: float
    high: float
    p_value: float
    test: str
    only_first: float
    only_second: float
    odds_ratio: float
    images: int
    seeds_first: int
    seeds_second: int


def compare_robustness(
    first: np.ndarray, second: np.ndarray, confidence: float = 0.95
) -> Comparison:
    """Compare two training procedures by what their networks withstood on the same test images.

    Images and seeds are both samples, and every network sees every image, so both are crossed
    random effects: the verdict on image i of the network with seed s in group g is modelled as
    ``mean_g + image_gi + seed_gs + rest_gsi``.  The variance of the difference has two parts::

        images:  Var_i(d_i) / n,   d_i the difference of the two means over seeds on image i
        seeds:   sum over g of max(0, MS_seed - MS_rest) / (n S_g)

    with the mean squares of the two-way analysis of variance of each group (``MS_rest`` is taken
    off because the first part holds it already).  The interval is Student's, with Satterthwaite's
    degrees of freedom (1946): few seeds widen it as they must, which resampling three seeds does
    not (a bootstrap's variance of them is too small by a third, and its quantiles know no t).
    The image part gets Agresti and Min's two pseudo-images (2005), half of one in each of the four
    outcomes of a pair, so that networks that never disagree do not get an interval of width zero.
    Seeds are not paired: a seed means the same initial weights in both groups, but not a comparable
    training; a seed that diverged is then simply missing.

    Where either group has one network only, nothing is known about its seeds; the interval then
    accounts for images alone and speaks about these networks.  With one network in each, the
    p-value is McNemar's exact one; otherwise it is that of the interval's t statistic.  Pooling the
    disagreements of several seeds into one McNemar test would count every image several times.

    Args:
        first: bool ``[seeds, images]``: the network of this seed withstood all attacks on the image.
        second: bool ``[seeds, images]``, the same images in the same order.
        confidence: coverage of the interval.

    Raises:
        UserError: if the two do not hold the same two or more images.
    """
    first, second = (np.atleast_2d(np.asarray(group, dtype=float)) for group in (first, second))
    n = first.shape[1]
    if n != second.shape[1] or n < 2 or 0 in (len(first), len(second)):
        raise UserError(
            "compare_robustness: expected [seeds, images] twice, with the same two or more images "
            f"and at least one seed, got {first.shape} and {second.shape}"
        )
    by_image = first.mean(0) - second.mean(0)
    difference = float(by_image.mean())
    centre = by_image.sum() / (n + 2)
    variance = image_variance = ((by_image**2).sum() + 1) / (n + 2) ** 2 - centre**2 / (n + 2)
    spread = image_variance**2 / (n - 1)
    if min(len(first), len(second)) > 1:
        for group in (first, second):
            seeds, rest = _seed_mean_squares(group)
            variance += max(0.0, seeds - rest) / (n * len(group))
            spread += (seeds / (n * len(group))) ** 2 / (len(group) - 1)
    freedom, error = variance**2 / spread, math.sqrt(variance)
    width = stats.t.ppf((1 + confidence) / 2, freedom) * error
    only_first = float((first.mean(0) * (1 - second.mean(0))).mean())
    only_second = float((second.mean(0) * (1 - first.mean(0))).mean())
    if len(first) == len(second) == 1:
        test, p_value = "McNemar", mcnemar(round(n * only_first), round(n * only_second))
    else:
        test, p_value = "t", 2 * float(stats.t.sf(abs(centre) / error, freedom))
    with np.errstate(divide="ignore", invalid="ignore"):
        odds_ratio = float(np.float64(only_first) / only_second)
    return Comparison(
        difference=difference,
        low=float(max(-1, centre - width)),
        high=float(min(1, centre + width)),
        p_value=p_value,
        test=test,
        only_first=only_first,
        only_second=only_second,
        odds_ratio=odds_ratio,
        images=n,
        seeds_first=len(first),
        seeds_second=len(second),
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
