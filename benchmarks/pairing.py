"""Does pairing by seed reduce the variance of a difference? Read finished runs of many seeds.

python benchmarks/pairing.py RUNS [RUNS ...]

RUNS: a directory of runs, or what `kdfast compare --json` printed. Prints, for each two recipes, the variance of their
difference by seed over the sum of their variances, with a 95 % interval (Fisher's z), and the number of seeds. Below 1,
pairing reduces the variance; independent runs have 1.
"""

import argparse
import json
import sys
from itertools import combinations
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from kdfast.analysis.aggregate import aggregate
from kdfast.runs.find import find_runs

LEAST = 3  # seeds


def accuracies(source):
    "Return the accuracies by data set, recipe and seed of a directory of runs, or of a JSON file"
    if source.is_file():
        rows = json.loads(source.read_text())
    else:
        runs = find_runs(source)
        rows = [row for data in {run.data for run in runs} for row in aggregate([r for r in runs if r.data == data])]
    found = {}
    for row in rows:
        if row['valid_accuracy']:
            by_seed = dict(zip(row['seeds'], row['valid_accuracy']['values']))
            found.setdefault(row['data'], {})[row['recipe']] = by_seed
    return found


def variance_ratio(a, b):
    "Return var(a - b) / (var a + var b), and the ends of its interval"
    shared = np.cov(a, b)
    correlation = 2 * shared[0, 1] / shared.trace()
    z, spread = np.arctanh(np.clip(correlation, -0.999, 0.999)), 1.96 / (len(a) - 2) ** 0.5
    return 1 - correlation, 1 - np.tanh(z + spread), 1 - np.tanh(z - spread)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', type=Path, nargs='+')
    print('ratio  95 % interval   n  standard deviations, points')
    for source in parser.parse_args().runs:
        for data, recipes in accuracies(source).items():
            ratios = []
            for one, other in combinations(recipes, 2):
                seeds = sorted(recipes[one].keys() & recipes[other].keys())
                a, b = ([recipes[name][seed] for seed in seeds] for name in (one, other))
                if len(seeds) >= LEAST and np.ptp(a) + np.ptp(b) > 0:
                    ratio, low, high = variance_ratio(a, b)
                    ratios.append(ratio)
                    deviations = ', '.join(f'{100 * np.std(v, ddof=1):.2f}' for v in (a, b, np.subtract(a, b)))
                    print(f'{ratio:5.2f}   {low:.2f} … {high:.2f}  {len(seeds):3}  {deviations}  {one} − {other}')
            if ratios:
                print(f'{np.mean(ratios):5.2f}  mean of {len(ratios)} pairs on {data}\n')


if __name__ == '__main__':
    main()
