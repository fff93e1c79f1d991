"""Are at most 5 % of the answers of `kdfast worth` wrong? Made-up studies of counted images, judged by the sentences.

python tests/slow/worth.py [--studies 4000]

Each study compares two recipes with one baseline, is looked at as its design declares, and stops at the first look with
an answer. Its first sentence is wrong if it says yes where the recipe that it names gains no more than the margin, no
where a recipe gains as much, or an interval that misses the true difference. As a negative control the same studies
have fixed-n intervals, which must be wrong more often. Prints the share of wrong sentences, then passed/tried; ends
with 1 where it is above 5 % and the sampling error, or the control never is.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / 'analysis'))

from simulated_answers import naive, share_wrong

from kdfast.stats.intervals import MARGIN
from kdfast.stats.sequential import LOOKS, Design

TRUE = (0, 0), (1, 0), (1, 1), (-1, 0), (-1, -1), (2, 0), (2, 2), (2, 1), (1.2, 0.8)  # margins, of both recipes
IMAGES = 100, 1000, 10000
SCHEDULES = LOOKS, (3,), (3, 5, 7)
SAMPLING = 4  # standard errors


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--studies', type=int, default=4000)
    studies = parser.parse_args().studies
    limit = 0.05 + SAMPLING * (0.05 * 0.95 / studies) ** 0.5
    passed = tried = control = 0
    print(f'share of wrong sentences, in %; in brackets with fixed-n intervals; limit {100 * limit:.2f} %\n')
    for looks in SCHEDULES:
        design = Design(looks, 2)
        for true in TRUE:
            cells = []
            for images in IMAGES:
                differences = [MARGIN * t for t in true]
                shares = [
                    share_wrong(np.random.default_rng([images, len(looks)]), studies, d, differences, images)
                    for d in (design, naive(design))
                ]
                passed, tried, control = passed + (shares[0] <= limit), tried + 1, control + (shares[1] > limit)
                cells.append(f'{100 * shares[0]:.1f} ({100 * shares[1]:.1f})'.rjust(12))
            print(','.join(map(str, looks)).ljust(14), str(true).ljust(12), *cells, flush=True)
    print(f'\nworth: {passed}/{tried} passed; negative control: {control}/{tried} fail, as they should')
    sys.exit(passed < tried or not control)


if __name__ == '__main__':
    main()
