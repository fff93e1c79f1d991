"""Compare accuracies in bfloat16 and float32: same recipe and seeds, paired differences, verdict.

python benchmarks/precision.py [--data digits] [--holdout 0] [--recipe baseline] [--seeds 5] [--epochs N]
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from kdfast.core.format import interval_text, signed_points
from kdfast.data import load
from kdfast.runs.recipes import find_recipe
from kdfast.stats.intervals import over_seeds
from kdfast.training.execute import train
from kdfast.training.run import Run

import torch


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    (
        parser.add_argument('--data', default='digits'),
        parser.add_argument('--holdout', type=float, default=0.0),
        parser.add_argument('--recipe', default='baseline'),
    )
    (
        parser.add_argument('--seeds', type=int, default=5),
        parser.add_argument('--epochs', type=int),
        parser.add_argument('--threads', type=int, default=1),
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    images, recipe, given = (
        load(args.data, args.holdout),
        find_recipe(args.recipe),
        {} if args.epochs is None else dict(epochs=args.epochs),
    )
    differences = []
    with tempfile.TemporaryDirectory() as runs:
        for seed in range(args.seeds):
            results = {}
            for precision in ('float32', 'bfloat16'):
                Run.precision = precision
                results[precision] = train(recipe, images, seed, given, Path(runs) / precision).result
            differences.append(results['bfloat16']['valid_accuracy'] - results['float32']['valid_accuracy'])
            print(
                f'seed {seed}: '
                + ', '.join(
                    f'{precision} {100 * r["valid_accuracy"]:.2f} % in {r["seconds"]:.0f} s'
                    for precision, r in results.items()
                ),
                flush=True,
            )
    if args.seeds > 1:
        found = over_seeds(differences, 1 / len(images.valid[1]))
        print(
            f'bfloat16 − float32: {signed_points(found.mean)} points, '
            f'95 % interval {interval_text(vars(found))}: {found.verdict()}'
        )


if __name__ == '__main__':
    main()
