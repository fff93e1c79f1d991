"""Contrasts of runs: differences of two or four, paired by seed, with interval and verdict. Imports no torch."""

from collections.abc import Mapping, Sequence
from itertools import count, takewhile

import numpy as np

from kdfast.analysis.comparability import check_same_images, differences_of
from kdfast.analysis.metrics import ACCURACY, Metric, paired_image_values
from kdfast.runs.run_dir import RunDir
from kdfast.stats.intervals import CONFIDENCE, Difference, mcnemar, over_image_values, over_seeds
from kdfast.stats.sequential import Design, decide

Runs = Mapping[int, RunDir]  # Finished runs by seed


def contrast_of(
    arms: Sequence[Runs],  # Two, of the same data: a − b; or four: (a − b) − (c − d)
    margin: float,  # Smallest difference that matters, as a fraction
    metric: Metric = ACCURACY,  # What the verdict judges
    confidence: float = CONFIDENCE,  # Of the interval, without a design
    design: Design | None = None,  # Looks of the study, and their confidence
) -> dict:
    """Compare the runs of the same seed, and return the row of one difference.

    The verdict is None without common seeds. With two or more seeds, the interval is Student's over seeds; with one,
    it is over its validation images. With a design, the row is that of the look that decides, or of the last one
    reached. Raises KdfastError if the images are not the same for all runs.
    """
    check_same_images([arm[seed] for seed in common_seeds(arms) for arm in arms])
    if design:
        return contrast_at_looks(arms, margin, metric, design)
    seeds = common_seeds(arms)
    if not seeds:
        return dict(metric=metric.name, seeds=seeds, verdict=None)
    if len(seeds) > 1:
        found = over_seeds(seed_values(arms, seeds, metric), step(arms, seeds[0], metric), confidence)
        return difference_row(arms, seeds, found, margin, metric)
    runs = [arm[seeds[0]] for arm in arms]
    values = paired_image_values(metric, runs)
    largest = len(arms) / 2 * metric.largest(runs[-1])
    row = difference_row(arms, seeds, over_image_values(signed_sum(values), largest, confidence), margin, metric)
    if metric is ACCURACY and len(arms) == 2:
        row['p_value'] = mcnemar(*(of_run.tolist() for of_run in values))
    return row


def contrast_at_looks(
    arms: Sequence[Runs],  # As of `contrast_of`
    margin: float,  # Smallest difference that matters, as a fraction
    metric: Metric,  # What the verdict judges
    design: Design,  # Looks of the study, and their confidence
) -> dict:
    """Return the row of the look that decides, or of the last one reached.

    Seeds count from 0, without gaps. The row has `look` and, as long as it is undecided, `next_look`; the verdict is
    None before the first look.
    """
    seeds = list(takewhile(lambda seed: all(seed in arm for arm in arms), count()))
    values = seed_values(arms, seeds, metric)
    found = decide(design, values, step(arms, 0, metric) if seeds else 0.0, margin)
    if found is None:
        return dict(metric=metric.name, seeds=seeds, verdict=None, next_look=design.following(len(seeds)))
    row = difference_row(arms, seeds[: found.n], found, margin, metric)
    undecided = row['verdict'] == 'undecided'
    next_look = design.following(len(seeds)) if undecided else None
    return row | dict(look=found.n, next_look=next_look, seeds_to_settle=None)


def common_seeds(
    arms: Sequence[Runs],  # At least one
) -> list[int]:
    "Return the seeds that all of them have."
    return sorted(set.intersection(*(set(runs) for runs in arms)))


def seed_values(
    arms: Sequence[Runs],  # As of `contrast_of`
    seeds: Sequence[int],  # That all of them have
    metric: Metric,  # Whose contrast
) -> list[float]:
    "Return the contrast of each seed."
    return [signed_sum([metric.value(arm[seed]) for arm in arms]) for seed in seeds]


def signed_sum(
    values: Sequence,  # Of two or four arms: numbers or arrays
):
    "Return a − b, or (a − b) − (c − d)."
    differences = [np.subtract(a, b) for a, b in zip(values[::2], values[1::2])]
    return differences[0] - differences[1] if len(differences) > 1 else differences[0]


def step(
    arms: Sequence[Runs],  # As of `contrast_of`
    seed: int,  # That all of them have
    metric: Metric,  # Whose contrast
) -> float:
    "Return how much one validation image changes the contrast at most; of four arms, two steps of one."
    return len(arms) / 2 * metric.step(arms[-1][seed])


def difference_row(
    arms: Sequence[Runs],  # As of `contrast_of`
    seeds: Sequence[int],  # That were compared
    difference: Difference,  # Of fractions
    margin: float,  # Smallest difference that matters, as a fraction
    metric: Metric,  # What the verdict judges
) -> dict:
    "Return the row of a difference."
    compared = [arm[seed] for arm in arms for seed in seeds]
    return dict(
        metric=metric.name,
        seeds=list(seeds),
        differ_in=', '.join(differences_of(compared)),
        resplit=any('drawn_from' in folder.run for folder in compared),
    ) | with_verdict(difference, margin)


def with_verdict(
    difference: Difference,  # Of fractions
    margin: float,  # Smallest difference that matters, as a fraction
) -> dict:
    "Return the difference as plain numbers, with its verdict and the number of seeds that would decide."
    verdict = difference.verdict(margin)
    undecided = verdict == 'undecided' and difference.of == 'seeds'
    return dict(
        of=difference.of,
        n=difference.n,
        difference=difference.mean,
        sd=difference.sd,
        low=difference.low,
        high=difference.high,
        confidence=difference.confidence,
        margin=margin,
        verdict=verdict,
        seeds_to_settle=difference.seeds_to_settle(margin) if undecided else None,
    )
