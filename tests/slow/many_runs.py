"""Write a page of many recipes × seeds: `python tests/slow/many_runs.py FOLDER`, for tests/slow/page.py.

FOLDER gets report.html, compare.json and the run directories: 14 recipes with up to 8 seeds, 60 classes with long
names, curves with gaps, a wild value and a recipe of one epoch. No run is trained.
"""

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import make, seal  # noqa: E402

from kdfast.analysis.aggregate import aggregate  # noqa: E402
from kdfast.core.atomic import write_csv  # noqa: E402
from kdfast.report.page import render_page  # noqa: E402
from kdfast.runs.find import find_runs  # noqa: E402

RECIPES = (
    'teacher,epochs=200',
    'baseline',
    'kd',
    'kd,T=6.0,epochs=200,teacher=runs_photographs_teacher_epochs=200_0',
    'dkd',
    'at',
    'rkd',
    'sp',
    'pkt',
    'vid',
    'crd',
    'fitnets',
    'exp1',
    'exp2',
)
CLASSES = [f'<b>class {k}</b> of a long name' for k in range(60)]
IMAGES = 1200
COLUMNS = 'epoch', 'train_total', 'train_soft', 'train_hard', 'train_accuracy', 'valid_hard', 'valid_accuracy'


def write_run(
    runs: Path,  # Directory of the runs
    recipe: str,  # Name of the run
    seed: int,  # Of the run
    number: int,  # Of the recipe: the higher, the more accurate
):
    "Write a run whose curves end at its results."
    random = np.random.default_rng([number, seed])
    actual = np.arange(IMAGES) % len(CLASSES)
    is_right = random.random(IMAGES) < 0.6 + number / 100
    predicted = np.where(is_right, actual, random.integers(0, len(CLASSES), IMAGES))
    matrix = np.bincount(actual * len(CLASSES) + predicted, minlength=len(CLASSES) ** 2).reshape(len(CLASSES), -1)
    accuracy = float((actual == predicted).mean())
    right = dict(zip(CLASSES, (matrix.diagonal() / matrix.sum(1)).tolist()))
    epochs = 1 if recipe == 'vid' else 200 if 'epochs=200' in recipe else 16
    folder = make(
        runs,
        recipe,
        seed,
        data='photographs',
        valid_accuracy=accuracy,
        valid_images=IMAGES,
        class_accuracy=right,
        valid_balanced_accuracy=float(np.mean(list(right.values()))),
        train_accuracy=0.9,
        best_valid_accuracy=accuracy,
        best_epoch=epochs,
        train_loss=0.3,
        params=305_866,
        epochs=epochs,
        seconds=60.0 + seed,
        worst_pairs=[],
    )
    write_csv(folder / 'confusion.csv', ['', *CLASSES], ([name, *row] for name, row in zip(CLASSES, matrix.tolist())))
    curve = accuracy * (1 - np.exp(-5 * np.arange(1, epochs + 1) / epochs)) / (1 - np.exp(-5))
    rows = [[e + 1, 2 - a, '' if number % 2 else 3 - a, 2 - a, a, 2 - a / 2, a] for e, a in enumerate(curve.tolist())]
    if recipe == 'sp':
        rows[0][1] = 1e6
    write_csv(folder / 'metrics.csv', COLUMNS, rows)
    np.savez(folder / 'predictions.npz', actual=actual, predicted=predicted)
    seal(folder)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    for number, recipe in enumerate(RECIPES):
        for seed in range(1 if recipe == 'at' else 8):
            write_run(folder / 'runs', recipe, seed, number)
    found = find_runs(folder / 'runs')
    (folder / 'compare.json').write_text(json.dumps(aggregate(found)))
    (folder / 'report.html').write_text(render_page(found, folder / 'runs', 0.008))
    print(f'wrote {folder / "report.html"}')


if __name__ == '__main__':
    main()
