"""Decide whether a difference is real, and large enough to matter: intervals of paired differences, against a margin.

Accuracies are counts of images. Student's and the normal interval know nothing of that: equal counts have no spread,
and would decide with certainty. So every interval here is as wide as if two more images had gone each way: with a step
of one image, 4·step² is added to the variance of the summed values, as Agresti and Coull add about two successes and
two failures to a proportion (https://doi.org/10.1080/00031305.1998.10480550). Where all values are equal, it reaches
2·q·step/n to both sides (q: Student's or the normal quantile): 3.9 images at least, summed over the seeds, where the
exact Poisson limit for a count of 0 is 3.7. Imports no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import inf, log, sqrt

import numpy as np
from scipy.special import stdtrit
from scipy.stats import binomtest

CONFIDENCE = 0.95
MARGIN = 0.008  # of accuracy: the report's 0.8 percentage points
MOST_SEEDS = 1000  # beyond it, nobody will run them
MORE_IMAGES = 4  # in the variance of a count: two more each way


@dataclass(frozen=True)
class Difference:
    "A mean paired difference with its 95 % interval, in the units of its values."

    mean: float
    low: float
    high: float
    n: int  # Pairs that it comes from
    sd: float  # Of the paired differences
    of: str  # What the pairs are: 'seeds', or the 'images' of one seed
    step: float = 0.0  # By how much one image moves a value

    def verdict(self, margin=MARGIN):
        """better, worse, alike or undecided, by where the interval lies against ±margin.

        Each of the first three is claimed only where one end of a 95 % interval excludes its contrary, so that
        whatever the true difference is, at most one verdict in twenty is wrong (as two one-sided tests at 2.5 %:
        Schuirmann 1987, https://doi.org/10.1007/BF01068419).
        """
        if self.low > margin:
            return 'better'
        if self.high < -margin:
            return 'worse'
        if -margin < self.low and self.high < margin:
            return 'alike'
        return 'undecided'

    def seeds_to_settle(self, margin=MARGIN):
        """Roughly how many seeds in all would decide, if mean and spread stayed as they are; None beyond 1,000.

        The least n whose interval is shorter than the distance from the mean to the nearest margin.
        """
        distance = abs(abs(self.mean) - margin)
        settles = (n for n in range(max(2, self.n), MOST_SEEDS + 1) if half_width(self.sd, n, self.step) < distance)
        return next(settles, None)


def half_width(sd, n, step=0.0, confidence=CONFIDENCE):
    "Half the length of Student's interval for the mean of n values, which one image moves by `step`"
    if sd < 1e-9 and not step:
        return inf
    return t_quantile(n - 1, confidence) * sqrt(n * sd**2 + more_images(confidence) * step**2) / n


@cache
def t_quantile(df, confidence=CONFIDENCE):
    return float(stdtrit(df, (1 + confidence) / 2))


@cache
def more_images(confidence):
    "In the variance of a count, so that of equal values the interval reaches the exact Poisson limit for a count of 0"
    return max(MORE_IMAGES, (log(2 / (1 - confidence)) / t_quantile(inf, confidence)) ** 2)


def over_seeds(
    values: Sequence[float],  # A paired difference a seed, two at least
    step: float = 0.0,  # By how much one image moves a value: 1/images for accuracies; 0 where the values are no counts
    confidence: float = CONFIDENCE,  # Of the interval; higher where a study is looked at several times
) -> Difference:
    """Student's interval for the mean of paired differences: what other seeds would give on the same validation images.

    Of equal values whose step is not known, it is unbounded.
    """
    mean, sd, n = float(np.mean(values)), float(np.std(values, ddof=1)), len(values)
    half = half_width(sd, n, step, confidence)
    return Difference(mean, mean - half, mean + half, n, sd, 'seeds', step)


def over_images(
    right: Sequence[bool],  # Whether one network has each image right
    other: Sequence[bool],  # Whether the other has the same image right
) -> Difference:
    "The difference between two accuracies on the same images: the test set's noise, not the training's."
    return over_image_values([bool(a) - bool(b) for a, b in zip(right, other, strict=True)])


def over_image_values(
    values: Sequence[float],  # A value an image, such as a difference of differences
    step: float = 1.0,  # The largest that a value can be
) -> Difference:
    "The normal interval of a mean over images: the test set's noise, not the training's."
    mean, sd, n = float(np.mean(values)), float(np.std(values)), len(values)
    half = t_quantile(inf) * sqrt(n * sd**2 + MORE_IMAGES * step**2) / n
    return Difference(mean, mean - half, mean + half, n, sd, 'images', step)


def discordant(right, other):
    "How many images only the one, and only the other, has right"
    pairs = list(zip(right, other, strict=True))
    return sum(bool(a) and not b for a, b in pairs), sum(bool(b) and not a for a, b in pairs)


def mcnemar(
    right: Sequence[bool],  # Whether one network has each image right
    other: Sequence[bool],  # Whether the other has the same image right
) -> float:  # p-value, two-sided
    "Exact test that two networks are equally often right on the same images (McNemar 1947)."
    return exact_p(*discordant(right, other))


def exact_p(only, other_only):
    "The same, from the numbers of images that only the one, and only the other, has right"
    return binomtest(only, only + other_only).pvalue if only + other_only else 1.0


def holm(
    p_values: Sequence[float],  # Of several tests made together
) -> list[float]:  # In the same order
    "p-values corrected for their number: the chance of one false alarm among them stays what each says (Holm 1979)."
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected
