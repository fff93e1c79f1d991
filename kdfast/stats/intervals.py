"""Decide whether a difference is real and large enough to matter: intervals of paired differences, and a margin.

Accuracies are counts of images. Student's interval and the normal interval ignore that: equal counts have no spread,
so they would decide with certainty. Therefore every interval here is as wide as if two more images had changed in each
direction: with a step of one image, 4·step² is added to the variance of the summed values, as Agresti and Coull add
about two successes and two failures to a proportion (https://doi.org/10.1080/00031305.1998.10480550). If all values
are equal, the interval reaches 2·q·step/n to both sides (q: quantile of Student's or the normal distribution): at
least 3.9 images, summed over the seeds, where the exact Poisson limit for a count of 0 is 3.7. Imports no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import inf, log, sqrt

import numpy as np
from scipy.special import stdtrit
from scipy.stats import binomtest

from kdfast.core.ranges import MARGIN_POINTS

CONFIDENCE = 0.95
MARGIN = MARGIN_POINTS / 100  # of accuracy, as a fraction
MAX_SEEDS = 1000  # more would not be run
MORE_IMAGES = 4  # in the variance of a count: two more in each direction


@dataclass(frozen=True)
class Difference:
    "A mean paired difference with its interval, in the units of its values."

    mean: float
    low: float
    high: float
    n: int  # Number of pairs
    sd: float  # Standard deviation of the paired differences
    of: str  # What the pairs are: 'seeds', or the 'images' of one seed
    step: float = 0.0  # How much one image changes a value
    confidence: float = CONFIDENCE  # Of the interval

    def verdict(
        self,
        margin: float = MARGIN,  # Smallest difference that matters, in the same units
    ) -> str:
        """Return better, worse, alike or undecided, from the position of the interval relative to ±margin.

        Each of the first three needs an end of the interval that excludes the contrary. So whatever the true
        difference is, with 95 % confidence at most one verdict in twenty is wrong (as for two one-sided tests at 2.5 %:
        Schuirmann 1987, https://doi.org/10.1007/BF01068419).
        """
        if self.low > margin:
            return 'better'
        if self.high < -margin:
            return 'worse'
        if -margin < self.low and self.high < margin:
            return 'alike'
        return 'undecided'

    def seeds_to_settle(
        self,
        margin: float = MARGIN,  # Smallest difference that matters, in the same units
    ) -> int | None:
        """Estimate how many seeds in total would decide, at the same mean and spread; None for over 1,000.

        It is the smallest n whose interval is shorter than the distance from the mean to the nearest margin.
        """
        distance = abs(abs(self.mean) - margin)
        for n in range(max(2, self.n), MAX_SEEDS + 1):
            if half_width(self.sd, n, self.step, self.confidence) < distance:
                return n
        return None


def half_width(
    sd: float,  # Standard deviation of the values
    n: int,  # Number of values
    step: float = 0.0,  # How much one image changes a value; 0 if the values are no counts
    confidence: float = CONFIDENCE,  # Of the interval
) -> float:
    "Return half the length of Student's interval for a mean of n values; inf if they are equal."
    if sd < 1e-9 and not step:
        return inf
    return t_quantile(n - 1, confidence) * sqrt(n * sd**2 + more_images(confidence) * step**2) / n


@cache
def t_quantile(
    df,  # Degrees of freedom
    confidence=CONFIDENCE,  # Of the interval
):
    "Return the quantile of Student's distribution for a two-sided interval."
    return float(stdtrit(df, (1 + confidence) / 2))


@cache
def more_images(
    confidence: float,  # Of the interval
):
    """Return the images added to the variance of a count.

    With them, equal values give the Poisson limit for a count of 0.
    """
    return max(MORE_IMAGES, (log(2 / (1 - confidence)) / t_quantile(inf, confidence)) ** 2)


def over_seeds(
    values: Sequence[float],  # A paired difference for each seed, two at least
    step: float = 0.0,  # How much one image changes a value: 1/images for accuracies; 0 if the values are no counts
    confidence: float = CONFIDENCE,  # Of the interval; higher for several looks or comparisons
) -> Difference:
    """Return Student's interval for the mean of paired differences over seeds, on the same images.

    For equal values with an unknown step, it is unbounded.
    """
    mean, sd, n = float(np.mean(values)), float(np.std(values, ddof=1)), len(values)
    half = half_width(sd, n, step, confidence)
    return Difference(mean, mean - half, mean + half, n, sd, 'seeds', step, confidence)


def over_images(
    correct: Sequence[bool],  # Whether one network classifies each image correctly
    other_correct: Sequence[bool],  # The same for the other network and the same images
) -> Difference:
    "Return the interval for a difference of accuracies on the same images, without training noise."
    return over_image_values([bool(a) - bool(b) for a, b in zip(correct, other_correct, strict=True)])


def over_image_values(
    values: Sequence[float],  # A value for each image, such as a difference of differences
    step: float = 1.0,  # The largest possible value
    confidence: float = CONFIDENCE,  # Of the interval; higher if several differences are judged together
) -> Difference:
    "Return the normal interval for a mean over images. It does not cover the noise of training."
    mean, sd, n = float(np.mean(values)), float(np.std(values)), len(values)
    half = t_quantile(inf, confidence) * sqrt(n * sd**2 + more_images(confidence) * step**2) / n
    return Difference(mean, mean - half, mean + half, n, sd, 'images', step, confidence)


def simultaneous_confidence(
    comparisons: int,  # Differences that are judged together, at least one
) -> float:
    "Return the confidence of each interval with which all of them hold in 95 % of studies (Bonferroni)."
    return 1 - (1 - CONFIDENCE) / comparisons


def discordant(
    correct: Sequence[bool],  # Whether one network classifies each image correctly
    other_correct: Sequence[bool],  # The same for the other network and the same images
) -> tuple[int, int]:
    "Count the images that only the first, and only the second, classifies correctly."
    pairs = list(zip(correct, other_correct, strict=True))
    return sum(bool(a) and not b for a, b in pairs), sum(bool(b) and not a for a, b in pairs)


def mcnemar(
    correct: Sequence[bool],  # Whether one network classifies each image correctly
    other_correct: Sequence[bool],  # The same for the other network and the same images
) -> float:  # p-value, two-sided
    "Test exactly whether two networks are equally often correct on the same images (McNemar 1947)."
    return exact_p(*discordant(correct, other_correct))


def exact_p(
    only: int,  # Number of images that only the first network classifies correctly
    other_only: int,  # The same for the second
) -> float:  # p-value, two-sided
    "Run McNemar's exact test on the counts of `discordant`."
    return binomtest(only, only + other_only).pvalue if only + other_only else 1.0


def holm(
    p_values: Sequence[float],  # Of several tests made together
) -> list[float]:  # In the same order
    "Correct p-values for the number of tests; they bound the chance of any false alarm (Holm 1979)."
    n = len(p_values)
    corrected, largest = [0.0] * n, 0.0
    for rank, i in enumerate(sorted(range(n), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (n - rank) * p_values[i]))
        corrected[i] = largest
    return corrected
