"Is a difference real, and large enough to matter? Intervals of paired differences, against a margin. Imports no torch."
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import sqrt

import numpy as np
from scipy.special import ndtri, stdtrit
from scipy.stats import binomtest

CONFIDENCE = 0.95
MARGIN = 0.008     # of accuracy: the report's 0.8 percentage points
MOST_SEEDS = 1000  # beyond it, nobody will run them


@dataclass(frozen=True)
class Difference:
    "A mean paired difference with its 95 % interval, in the units of its values."
    mean: float
    low: float
    high: float
    n: int           # Pairs that it comes from
    sd: float        # Of the paired differences
    of: str          # What the pairs are: 'seeds', or the 'images' of one seed

    def verdict(self, margin=MARGIN):
        """better, worse, alike or undecided, by where the interval lies against ±margin.

        Each of the first three is claimed only where one end of a 95 % interval excludes its contrary, so that
        whatever the true difference is, at most one verdict in twenty is wrong (as two one-sided tests at 2.5 %:
        Schuirmann 1987, https://doi.org/10.1007/BF01068419).
        """
        if self.low > margin: return 'better'
        if self.high < -margin: return 'worse'
        if -margin < self.low and self.high < margin: return 'alike'
        return 'undecided'

    def seeds_to_settle(self, margin=MARGIN):
        """Roughly how many seeds in all would decide, if mean and spread stayed as they are; None beyond 1,000.

        The least n with t(n−1)·sd/√n below the distance from the mean to the nearest margin.
        """
        distance = abs(abs(self.mean) - margin)
        return next((n for n in range(max(2, self.n), MOST_SEEDS + 1) if half_width(self.sd, n) < distance), None)


def half_width(sd, n):
    "Half the length of Student's 95 % interval for the mean of n values"
    return t_quantile(n - 1) * sd/sqrt(n)


@cache
def t_quantile(df): return float(stdtrit(df, (1 + CONFIDENCE)/2))


def over_seeds(
    values:Sequence[float], # A paired difference a seed, two at least
) -> Difference:
    "Student's interval for the mean of paired differences: what another seed would give."
    mean,sd,n = float(np.mean(values)),float(np.std(values, ddof=1)),len(values)
    half = half_width(sd, n)
    return Difference(mean, mean - half, mean + half, n, sd, 'seeds')


def over_images(
    right:Sequence[bool], # Whether one network has each image right
    other:Sequence[bool], # Whether the other has the same image right
) -> Difference:
    """The difference between two accuracies on the same images: the test set's noise, not the training's.

    Agresti & Min 2005 (https://doi.org/10.1002/sim.1781): the normal interval of a paired difference of
    proportions, half an image added to each cell of the 2×2 table.
    """
    n,only,other_only = len(right),*discordant(right, other)
    b,c,m = only + .5,other_only + .5,n + 2
    mean,sd = (b - c)/m,sqrt((b + c)/m - ((b - c)/m)**2)
    half = float(ndtri((1 + CONFIDENCE)/2)) * sd/sqrt(m)
    return Difference((only - other_only)/n, mean - half, mean + half, n, sd, 'images')


def over_image_values(
    values:Sequence[float], # A value an image, such as a difference of differences
) -> Difference:
    "The normal interval of a mean over images: the test set's noise, not the training's."
    mean,sd,n = float(np.mean(values)),float(np.std(values, ddof=1)),len(values)
    half = float(ndtri((1 + CONFIDENCE)/2)) * sd/sqrt(n)
    return Difference(mean, mean - half, mean + half, n, sd, 'images')


def discordant(right, other):
    "How many images only the one, and only the other, has right"
    pairs = list(zip(right, other, strict=True))
    return sum(bool(a) and not b for a,b in pairs),sum(bool(b) and not a for a,b in pairs)


def mcnemar(
    right:Sequence[bool], # Whether one network has each image right
    other:Sequence[bool], # Whether the other has the same image right
) -> float: # p-value, two-sided
    "Exact test that two networks are equally often right on the same images (McNemar 1947)."
    only,other_only = discordant(right, other)
    return binomtest(only, only + other_only).pvalue if only + other_only else 1.


def holm(
    p_values:Sequence[float], # Of several tests made together
) -> list[float]: # In the same order
    "p-values corrected for their number: the chance of one false alarm among them stays what each says (Holm 1979)."
    corrected,largest = [0.]*len(p_values),0.
    for rank,i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1., (len(p_values) - rank)*p_values[i]))
        corrected[i] = largest
    return corrected
