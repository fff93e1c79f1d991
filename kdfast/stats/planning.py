"""Expect how many seeds a study will need, before it has any: simulated studies of a declared design.

The accuracy of a trained network on N images varies by chance with a variance of about error / 2N over seeds (Jordan
2024, https://arxiv.org/abs/2304.01910), the difference of two networks with the sum of both. The verdicts of studies
whose differences are drawn with this spread, or with that of finished runs, show at which look they are decided. The
recipes of a study share the runs of its baseline. Imports no torch.
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, sqrt

import numpy as np

from kdfast.stats.intervals import more_images, t_quantile
from kdfast.stats.sequential import Design

STUDIES = 2000  # simulated: the share of the decided ones is known to about one percentage point
SHARE = 0.8  # of the studies that are decided where a plan expects a decision
FACTORS = tuple(1.1**k for k in range(1, 61))  # of the images or of the margin that are tried: up to 304


@dataclass(frozen=True)
class Outlook:
    "When a study is expected to be decided, if all of its recipes have the same true difference."

    true: float  # Difference of every recipe from the baseline
    seeds: float  # Mean number of seeds until all recipes are decided, or until the last look
    look: int | None  # First look at which SHARE of the studies are decided; None if the last one is not enough
    decided: float  # Share of the studies that are decided at the last look


def expected_sd(
    error: float,  # Share of the images that a network gets wrong
    other_error: float,  # The same of the network that it is compared with
    n_images: float,  # Validation images
) -> float:
    "Return the standard deviation over seeds that the difference of two accuracies is expected to have."
    return sqrt((error + other_error) / (2 * n_images))


def balanced_images(
    class_sizes: Sequence[int],  # Validation images of each class
) -> float:
    "Return how many images of equal classes would give a balanced accuracy the same variance."
    present = [n for n in class_sizes if n]
    return len(present) ** 2 / sum(1 / n for n in present)


@cache
def standard_studies(
    recipes: int,  # Compared with one baseline
    seeds: int,  # Of every study
) -> np.ndarray:  # (STUDIES, recipes, seeds)
    "Draw differences of mean 0 and variance 1; those of one seed have a correlation of 1/2."
    draws = np.random.default_rng([recipes, seeds]).standard_normal((STUDIES, recipes + 1, seeds))
    return (draws[:, 1:] - draws[:, :1]) / sqrt(2)


def outlook(
    design: Design,  # Looks of the study, and their confidence
    sd: float,  # Of a paired difference
    step: float,  # By how much one image moves a difference
    true: float,  # Difference of every recipe
    margin: float,  # Smallest difference that matters
) -> Outlook:
    "Return when a study is expected to be decided. The same arguments always give the same."
    values = true + sd * standard_studies(design.comparisons, design.last)
    open_, seeds, look = np.ones(values.shape[:2], bool), np.full(STUDIES, design.last), None
    for n in design.looks:
        confidence, of_look = design.confidence(n), values[..., :n]
        spread = n * of_look.var(-1, ddof=1) + more_images(confidence) * step**2
        half, mean = t_quantile(n - 1, confidence) * np.sqrt(spread) / n, of_look.mean(-1)
        alike = (mean - half > -margin) & (mean + half < margin)
        running = open_.any(-1)
        open_ &= ~(alike | (mean - half > margin) | (mean + half < -margin))
        seeds[running & ~open_.any(-1)] = n
        if look is None and 1 - open_.any(-1).mean() >= SHARE:
            look = n
    return Outlook(true, float(seeds.mean()), look, float(1 - open_.any(-1).mean()))


def outlooks(
    design: Design,  # Looks of the study, and their confidence
    sd: float,  # Of a paired difference
    step: float,  # By how much one image moves a difference
    margin: float,  # Smallest difference that matters
) -> list[Outlook]:
    "Return the outlooks for a true difference of 0 and of twice the margin."
    return [outlook(design, sd, step, true, margin) for true in (0.0, 2 * margin)]


def remedies_of(
    design: Design,  # Looks of the study, and their confidence
    sd: float,  # Of a paired difference
    step: float,  # By how much one image moves a difference
    margin: float,  # Smallest difference that matters, above 0
    n_images: int,  # Validation images
) -> dict[str, float | None]:
    "Return the `images`, and the `margin`, with which the last look is expected to decide."
    factor = images_needed(design, sd, step, margin)
    digits = factor and 10 ** max(0, len(str(round(factor * n_images))) - 2)
    images = factor and digits * ceil(factor * n_images / digits)
    return dict(images=images, margin=margin_needed(design, sd, step, margin))


def images_needed(
    design: Design,  # Looks of the study, and their confidence
    sd: float,  # Of a paired difference
    step: float,  # By how much one image moves a difference
    margin: float,  # Smallest difference that matters
) -> float | None:
    "Return how many times as many validation images the last look needs; None for more than 300 times."
    return smallest_factor(lambda f: outlooks(design, sd / sqrt(f), step / f, margin))


def margin_needed(
    design: Design,  # Looks of the study, and their confidence
    sd: float,  # Of a paired difference
    step: float,  # By how much one image moves a difference
    margin: float,  # Smallest difference that matters, above 0
) -> float | None:
    "Return the smallest margin at which the last look is expected to decide; None if none is tried."
    factor = smallest_factor(lambda f: outlooks(design, sd, step, f * margin))
    return factor and factor * margin


def smallest_factor(
    expected: Callable[[float], list[Outlook]],  # From a factor to outlooks, which get better with it
) -> float | None:
    "Return the smallest of FACTORS with which all outlooks are decided; None if there is none."
    at = bisect_left(FACTORS, True, key=lambda f: all(found.look for found in expected(f)))
    return FACTORS[at] if at < len(FACTORS) else None
