"""Are at most 5 % of the verdicts wrong, at any look and over all recipes? Made-up studies of counted images.

python tests/slow/sequential.py [--studies 20000]

Each study compares recipes with one baseline at the looks of a design, and ends when all are decided or after the last
look. It is wrong where any of its verdicts, at whichever look, is: on the margin itself every verdict but undecided
is. Two networks differ on each image independently, every seed draws anew, all recipes share the baseline's errors.
As a negative control the same studies are looked at with fixed-n intervals, which must be wrong more often. Then the
primary contrast of `kdfast matrix`, a difference of differences of four networks, on the margin and off it. Then the
seeds that a study takes against those of a fixed design that decides as often. Prints the largest share of wrong
studies, then passed/tried; ends with 1 where the design is wrong more often than 5 % and the sampling error, or the
control never is.
"""

import argparse
import sys

import numpy as np
from scipy.special import stdtrit

from kdfast.stats.intervals import MARGIN, MORE_IMAGES, more_images
from kdfast.stats.sequential import LOOKS, Design, by_union_bound

IMAGES = 100, 250, 1000, 10000
RECIPES = 1, 4, 15
SCHEDULES = LOOKS, (2, 3, 4, 5, 6, 7, 8, 9, 10), (5, 10), (2, 20)
DISCORDANCES = 0.02, 0.06, 0.2  # share of the images that one network alone has right
TRUE = 0.0, 1.0, -1.0, 1.2  # margins
FORMER = 3, 5, 8, 12, 20  # the default looks of earlier versions
SAMPLING = 4  # standard errors: the largest of some hundred estimates lies above what it estimates


def differences(random, studies, recipes, n, images, discordance, true):
    "(studies, recipes, n): counts of images that the recipe alone, less those that the baseline alone has right"
    shared = random.binomial(images, discordance / 4, (studies, 1, n))  # the baseline's own errors, in every comparison
    ahead = random.binomial(images, discordance / 2 - discordance / 4 + max(true, 0.0), (studies, recipes, n))
    behind = random.binomial(images, discordance / 2 + max(-true, 0.0), (studies, recipes, n))
    return ahead + shared - behind


def contrasts_of_four(random, studies, n, images, discordance, true, baselines):
    "(studies, 1, n): differences of experiments, which differ by `true` from those of their baselines, less the latter"
    experiments = differences(random, studies, 1, n, images, discordance, true + baselines)
    return experiments - differences(random, studies, 1, n, images, discordance, baselines)


def halves(values, look, images, confidence, more):
    "Half the interval of each mean over the first `look` seeds, as kdfast.stats.intervals has it"
    sd2 = values[..., :look].var(-1, ddof=1)
    return stdtrit(look - 1, (1 + confidence) / 2) * np.sqrt(look * sd2 + more) / look / images


def look_at(values, design, images, margin, true, fixed=False, step=1):
    "Of each study: whether any verdict was wrong, and the seeds that it took until all were decided; step: images"
    open_, wrong = np.ones(values.shape[:2], bool), np.zeros(len(values), bool)
    seeds = np.full(len(values), design.last)
    for look in design.looks:
        confidence = 0.95 if fixed else design.confidence(look)
        half = halves(values, look, images, confidence, step**2 * (MORE_IMAGES if fixed else more_images(confidence)))
        mean = values[..., :look].mean(-1) / images
        better, worse = mean - half > margin, mean + half < -margin
        alike = (mean - half > -margin) & (mean + half < margin)
        false = better * (true <= margin) + worse * (true >= -margin) + alike * (abs(true) >= margin)
        running = open_.any(1)
        wrong |= running & (false.astype(bool) & open_).any(1)
        open_ &= ~(better | worse | alike)
        seeds = np.where(running & ~open_.any(1), look, seeds)
    return wrong, seeds, ~open_.any(1)


def fixed_design(random, studies, images, discordance, true, share, margin=MARGIN):
    "The least number of seeds, fixed beforehand, at which one comparison is decided in that share of the studies"
    values = differences(random, studies, 1, 60, images, discordance, true)
    for n in range(2, 61):
        half = halves(values, n, images, 0.95, MORE_IMAGES)
        mean = values[..., :n].mean(-1) / images
        decided = (mean - half > margin) | (mean + half < -margin) | (mean - half > -margin) & (mean + half < margin)
        if decided.mean() >= share:
            return n
    return None


def error_rates(studies, limit):
    "Of every design and true difference: passed, tried, and how many of the negative control fail"
    passed = tried = control = 0
    print(f'largest share of wrong studies, in %; in brackets that of fixed-n intervals; limit {100 * limit:.2f} %\n')
    print('looks'.ljust(22), 'recipes', *(f'{images:,}'.rjust(13) for images in IMAGES))
    for looks in SCHEDULES:
        for recipes in RECIPES:
            cells, design = [], Design(looks, recipes)
            for images in IMAGES:
                shares = {True: [], False: []}
                for k, (discordance, true) in enumerate((d, t * MARGIN) for d in DISCORDANCES for t in TRUE):
                    random = np.random.default_rng([images, recipes, len(looks), k])
                    n = max(400, studies // recipes)
                    values = differences(random, n, recipes, design.last, images, discordance, true)
                    for fixed in shares:
                        shares[fixed].append(look_at(values, design, images, MARGIN, true, fixed)[0].mean())
                bound = limit if recipes == 1 else 0.05 + SAMPLING * (0.05 * 0.95 / max(400, studies // recipes)) ** 0.5
                passed += sum(share <= bound for share in shares[False])
                tried += len(shares[False])
                control += sum(share > bound for share in shares[True])
                cells.append(f'{100 * max(shares[False]):.1f} ({100 * max(shares[True]):.1f})'.rjust(13))
            print(','.join(map(str, looks)).ljust(22), str(recipes).rjust(7), *cells, flush=True)
    return passed, tried, control


def question_rates(studies, limit):
    "Of the matrix question's primary contrast: passed, tried, and how many of the negative control fail"
    passed = tried = control = 0
    print('\nthe contrast of four networks, (with - without) - (thin - matched)')
    for looks in SCHEDULES:
        cells, design = [], Design(looks)
        for images in IMAGES:
            shares = {True: [], False: []}
            grid = ((d, t * MARGIN, b * MARGIN) for d in DISCORDANCES for t in TRUE for b in (0.0, 0.5))
            for k, (discordance, true, baselines) in enumerate(grid):
                random = np.random.default_rng([images, len(looks), k])
                values = contrasts_of_four(random, studies, design.last, images, discordance, true, baselines)
                for fixed in shares:
                    wrong, _, _ = look_at(values, design, images, MARGIN, true, fixed, step=2)
                    shares[fixed].append(wrong.mean())
            passed += sum(share <= limit for share in shares[False])
            tried += len(shares[False])
            control += sum(share > limit for share in shares[True])
            cells.append(f'{100 * max(shares[False]):.1f} ({100 * max(shares[True]):.1f})'.rjust(13))
        print(','.join(map(str, looks)).ljust(30), *cells, flush=True)
    return passed, tried, control


def savings(studies):
    "Seeds against other designs, where the true effect is 0 or twice the margin"
    print(f'\nmean seeds of looks {",".join(map(str, LOOKS))}; of the fixed design that decides as often;')
    print(f'and of the looks {",".join(map(str, FORMER))} by the union bound, as before')
    design, former = Design(), Design(FORMER, 1, by_union_bound(FORMER, 1))
    for images in 1000, 10000:
        for discordance in 0.06, 0.2:
            for true in 0.0, 2.0:
                random = np.random.default_rng([images, int(100 * discordance), int(true)])
                values = differences(random, studies, 1, design.last, images, discordance, true * MARGIN)
                _, seeds, decided = look_at(values, design, images, MARGIN, true * MARGIN)
                fixed = fixed_design(random, studies, images, discordance, true * MARGIN, decided.mean())
                _, before, _ = look_at(values, former, images, MARGIN, true * MARGIN)
                more, less = (
                    f'{100 * (seeds.mean() / other - 1):+.0f} %' for other in (fixed or np.nan, before.mean())
                )
                print(
                    f'{images:6,} images, {discordance:.0%} differ, effect {true:g} margins: {seeds.mean():4.1f} '
                    f'seeds, decided {decided.mean():.0%}; fixed {fixed}: {more}; before {before.mean():.1f}: {less}'
                )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--studies', type=int, default=20000)
    studies = parser.parse_args().studies
    limit = 0.05 + SAMPLING * (0.05 * 0.95 / studies) ** 0.5
    rates = (suite(studies, limit) for suite in (error_rates, question_rates))
    passed, tried, control = map(sum, zip(*rates))
    savings(studies)
    print(f'\nsequential: {passed}/{tried} passed; negative control: {control}/{tried} fail, as they should')
    sys.exit(passed < tried or not control)


if __name__ == '__main__':
    main()
