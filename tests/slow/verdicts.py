"""Are at most 5 % of the verdicts wrong? Made-up studies of counted images, whose true difference is known.

python tests/slow/verdicts.py [--studies 20000] [--family]

Two networks on one validation set: each image is, independently, right for the one alone, for the other alone, or
alike for both; every seed draws anew. A verdict is wrong where the true difference is otherwise; on the margin itself
every verdict but undecided is. Prints, for each size of the validation set and number of seeds (1: the interval over
images), the largest share of wrong verdicts over all discordances and true differences, for the intervals of kdfast
and, as a negative control, for those that know nothing of counts; then passed/tried. Ends with 1 where kdfast's are
wrong more often than 5 % and the sampling error, or the control's never are.

Then the same for balanced accuracy, where an image of a class weighs the more, the fewer images the class has: sizes of
classes, and networks that differ in all classes, in the smallest one or in the largest one alone.

--family: instead, 1 to 15 recipes against one baseline, which all share its errors. A study is wrong where any of its
verdicts is. The negative control are intervals that are not corrected for the number of recipes.
"""

import argparse
import sys

import numpy as np
from scipy.special import ndtri, stdtrit

from kdfast.stats.intervals import MARGIN, MORE_IMAGES, more_images, simultaneous_confidence

IMAGES = 16, 36, 100, 250, 400, 1198, 10000
DISCORDANCES = None, 0.01, 0.02, 0.03, 0.06, 0.1, 0.2, 0.3  # None: no more than the true difference needs, all one way
SEEDS = 2, 3, 4, 5, 6, 8, 10, 15, 20
TRUE = 0.0, 0.5, 1.0, -1.0, 1.2, 3.0  # margins
MARGINS = MARGIN, 0.001, 0.02
SIZES = (  # images of each class
    (990, 10),
    (100, 1),
    (5000, 500, 50),
    (300, 200, 100, 50, 20, 10, 5, 2),
    (1000, *[20] * 9),
    (*[100] * 9, 3),
)
PLACES = 'all', 'smallest', 'largest'
RECIPES = 1, 2, 4, 8, 15
FAMILY_IMAGES = 100, 1000, 10000
FAMILY_SEEDS = 1, 2, 3, 5, 10, 20
FAMILY_DISCORDANCES = 0.01, 0.06, 0.2
FAMILY_TRUE = 0.0, 1.0, -1.0, 1.2, None  # margins, of all recipes; None: every recipe another
SAMPLING = 4  # standard errors: the largest of some hundred estimates lies three above what it estimates


def share_wrong(
    random: np.random.Generator,
    images: int,  # Of the validation set
    discordance: float,  # Share of the images that one network alone has right
    true: float,  # Difference of their accuracies
    n: int,  # Seeds
    studies: int,
    interval,  # Function of (right alone, wrong alone), each (studies, seeds), and the number of images
    margin: float,
) -> float:
    "The share of the studies whose verdict is wrong."
    ahead, behind = (discordance + true) / 2, (discordance - true) / 2
    only = random.binomial(images, ahead, (studies, n))
    other_only = random.binomial(images - only, max(0.0, behind) / (1 - ahead))
    low, high = interval(only, other_only, images)
    return wrong_share(low, high, true, margin)


def wrong_share(low, high, true, margin):
    better, worse, alike = low > margin, high < -margin, (low > -margin) & (high < margin)
    return float((better * (true <= margin) + worse * (true >= -margin) + alike * (abs(true) >= margin)).mean())


def share_wrong_balanced(
    random: np.random.Generator,
    sizes: tuple[int, ...],  # Images of each class
    place: str,  # Where the networks differ: all classes, the smallest or the largest alone
    discordance: float,  # Share of the images of these classes that one network alone has right
    true: float,  # Difference of their balanced accuracies
    n: int,  # Seeds; 1: the interval over images
    studies: int,
    margin: float,
    more: float = MORE_IMAGES,
) -> float | None:  # None where no such difference can be
    "The share of the studies whose verdict on balanced accuracy is wrong."
    sizes = np.array(sizes)
    where = dict(all=sizes > 0, smallest=sizes == sizes.min(), largest=sizes == sizes.max())[place]
    in_class = where * true * len(sizes) / where.sum()
    differ = np.maximum(discordance * where, abs(in_class))
    if differ.max() > 1:
        return None
    ahead, behind = (differ + in_class) / 2, (differ - in_class) / 2
    only = random.binomial(sizes, ahead, (studies, n, len(sizes)))
    other_only = random.binomial(sizes - only, np.clip(behind / np.maximum(1 - ahead, 1e-9), 0, 1))
    interval = balanced_over_images if n == 1 else balanced_over_seeds
    return wrong_share(*interval(only, other_only, sizes, more), true, margin)


def balanced_over_seeds(only, other_only, sizes, more=MORE_IMAGES):
    weights, n = 1 / (len(sizes) * sizes), only.shape[1]
    differences = ((only - other_only) * weights).sum(2)
    half = stdtrit(n - 1, 0.975) * np.sqrt(n * differences.var(1, ddof=1) + more * weights.max() ** 2) / n
    return differences.mean(1) - half, differences.mean(1) + half


def balanced_over_images(only, other_only, sizes, more=MORE_IMAGES):
    weights = 1 / (len(sizes) * sizes)
    mean = ((only[:, 0] - other_only[:, 0]) * weights).sum(1)
    squares = ((only[:, 0] + other_only[:, 0]) * weights**2).sum(1)
    half = ndtri(0.975) * np.sqrt(squares - mean**2 / sizes.sum() + more * weights.max() ** 2)
    return mean - half, mean + half


def over_seeds(only, other_only, images, more):
    differences, n = (only - other_only) / images, only.shape[1]
    half = stdtrit(n - 1, 0.975) * np.sqrt(n * differences.var(1, ddof=1) + more / images**2) / n
    return differences.mean(1) - half, differences.mean(1) + half


def new_over_seeds(only, other_only, images):
    return over_seeds(only, other_only, images, MORE_IMAGES)


def old_over_seeds(only, other_only, images):
    return over_seeds(only, other_only, images, 0)


def new_over_images(only, other_only, images):
    mean = (only[:, 0] - other_only[:, 0]) / images
    half = ndtri(0.975) * np.sqrt(only[:, 0] + other_only[:, 0] - images * mean**2 + MORE_IMAGES) / images
    return mean - half, mean + half


def old_over_images(only, other_only, images):
    "Agresti and Min's, with half an image more in each cell of the 2×2 table: right on average, not at its worst"
    n = images + 2
    mean = (only[:, 0] - other_only[:, 0]) / n
    half = ndtri(0.975) * np.sqrt((only[:, 0] + other_only[:, 0] + 1) / n - mean**2) / np.sqrt(n)
    return mean - half, mean + half


def trials(margin):
    "(true difference, discordance), as far as there can be one with the other"
    for true in sorted({share * margin for share in TRUE}):
        for discordance in DISCORDANCES:
            enough = abs(true) if discordance is None else discordance
            if enough and enough >= abs(true):
                yield true, enough


def balanced_trials(sizes, n, studies, margin, more=MORE_IMAGES):
    "Yield the share of wrong verdicts on balanced accuracy of every place, discordance and true difference"
    for place in PLACES:
        for k, (true, discordance) in enumerate(trials(margin)):
            random = np.random.default_rng([*sizes, n, k])
            share = share_wrong_balanced(random, sizes, place, discordance, true, n, studies, margin, more)
            if share is not None:
                yield share


def balanced_rates(studies, limit):
    "Of every distribution of classes: passed, tried, and how many of the negative control fail"
    passed = tried = control = 0
    print('\nbalanced accuracy, by the images of the classes')
    for sizes in SIZES:
        cells = []
        for n in (1, *SEEDS):
            new, old = (
                [s for m in MARGINS for s in balanced_trials(sizes, n, studies, m, k)] for k in (MORE_IMAGES, 0)
            )
            passed, tried = passed + sum(share <= limit for share in new), tried + len(new)
            control += sum(share > limit for share in old)
            cells.append(f'{100 * max(new):.1f} ({100 * max(old):.1f})'.rjust(13))
        print(','.join(map(str, sizes))[:30].rjust(30), *cells, flush=True)
    return passed, tried, control


def family_counts(random, images, discordance, true, n, studies):
    """(studies, recipes, n) counts of images: right with the recipe alone, right with the baseline alone.

    A half of the baseline's own errors is common to all recipes. `true`: (recipes,) differences of accuracies.
    """
    shape = studies, len(true), n
    ahead = discordance / 2 + np.maximum(true, 0)[:, None]
    behind = discordance / 4 + np.maximum(-true, 0)[:, None]
    shared = random.binomial(images, discordance / 4, (studies, 1, n))
    return random.binomial(images, ahead, shape), shared + random.binomial(images, behind, shape)


def family_intervals(only, other_only, images, confidence):
    "Means and half intervals, (studies, recipes), as kdfast.stats.intervals has them"
    n, more = only.shape[2], more_images(confidence)
    counts = only - other_only
    mean = counts.mean(2)
    if n == 1:
        return mean / images, ndtri((1 + confidence) / 2) * np.sqrt(
            (only + other_only)[..., 0] - mean**2 / images + more
        ) / images
    return mean / images, stdtrit(n - 1, (1 + confidence) / 2) * np.sqrt(n * counts.var(2, ddof=1) + more) / n / images


def share_wrong_family(only, other_only, images, true, confidence, margin=MARGIN):
    "The share of the studies with any wrong verdict."
    mean, half = family_intervals(only, other_only, images, confidence)
    low, high = mean - half, mean + half
    better, worse, alike = low > margin, high < -margin, (low > -margin) & (high < margin)
    wrong = better & (true <= margin) | worse & (true >= -margin) | alike & (abs(true) >= margin)
    return float(wrong.any(1).mean())


def true_differences(recipes, true, margin=MARGIN):
    "Of each recipe; for None on the margin, beyond it and at zero in turn"
    shares = np.resize([1.0, -1.0, 0.0, 1.2], recipes) if true is None else np.full(recipes, true)
    return shares * margin


def family_rates(studies, limit):
    "Of every number of recipes, images and seeds: passed, tried, and how many of the negative control fail"
    passed = tried = control = 0
    print('recipes  images'.rjust(16), *(f'{n} seed{"s" if n > 1 else ""}'.rjust(13) for n in FAMILY_SEEDS))
    for recipes in RECIPES:
        for images in FAMILY_IMAGES:
            cells = []
            for n in FAMILY_SEEDS:
                shares = {simultaneous_confidence(recipes): [], None: []}
                for k, (discordance, true) in enumerate((d, t) for d in FAMILY_DISCORDANCES for t in FAMILY_TRUE):
                    random, each = np.random.default_rng([recipes, images, n, k]), true_differences(recipes, true)
                    counts = family_counts(random, images, discordance, each, n, studies)
                    for confidence, found in shares.items():
                        found.append(share_wrong_family(*counts, images, each, confidence or 0.95))
                new, old = shares.values()
                passed, tried = passed + sum(share <= limit for share in new), tried + len(new)
                control += sum(share > limit for share in old)
                cells.append(f'{100 * max(new):.1f} ({100 * max(old):.1f})'.rjust(13))
            print(str(recipes).rjust(7), str(images).rjust(8), *cells, flush=True)
    return passed, tried, control


def single_rates(studies, limit):
    "Of every size of the validation set and number of seeds: passed, tried, and how many of the control fail"
    passed = tried = control = 0
    print('images'.rjust(7), *(f'{n} seed{"s" if n > 1 else ""}'.rjust(13) for n in (1, *SEEDS)))
    for images in IMAGES:
        cells = []
        for n in (1, *SEEDS):
            new, old = (new_over_images, old_over_images) if n == 1 else (new_over_seeds, old_over_seeds)
            shares = {new: [], old: []}
            for margin, (k, (true, discordance)) in ((m, trial) for m in MARGINS for trial in enumerate(trials(m))):
                for interval in shares:
                    random = np.random.default_rng([images, n, k])
                    share = share_wrong(random, images, discordance, true, n, studies, interval, margin)
                    shares[interval].append(share)
            passed += sum(share <= limit for share in shares[new])
            tried += len(shares[new])
            control += sum(share > limit for share in shares[old])
            cells.append(f'{100 * max(shares[new]):.1f} ({100 * max(shares[old]):.1f})'.rjust(13))
        print(str(images).rjust(7), *cells, flush=True)
    return passed, tried, control


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--studies', type=int, default=20000)
    parser.add_argument('--family', action='store_true')
    args = parser.parse_args()
    limit = 0.05 + SAMPLING * (0.05 * 0.95 / args.studies) ** 0.5
    control_is = 'are not corrected' if args.family else 'know nothing of counts'
    print(
        f'largest share of wrong {"studies" if args.family else "verdicts"}, in %; in brackets that of intervals that '
        f'{control_is}; limit {100 * limit:.2f} %\n'
    )
    suites = [family_rates] if args.family else [single_rates, balanced_rates]
    passed, tried, control = map(sum, zip(*(suite(args.studies, limit) for suite in suites)))
    print(f'\nverdicts: {passed}/{tried} passed; negative control: {control}/{tried} fail, as they should')
    sys.exit(passed < tried or not control)


if __name__ == '__main__':
    main()
