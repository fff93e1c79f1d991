"The live board: total progress, time left, verdicts under a design."

import io

from conftest import make
from rich.console import Console

from kdfast.analysis.design import Declared, declare
from kdfast.core.atomic import write_csv
from kdfast.runs.recipes import find_recipe
from kdfast.study import board
from kdfast.study.tasks import plan


def shown(found):
    console = Console(file=io.StringIO(), width=80)
    console.print(found.headline(), found.table(), *found.verdict_lines())
    return console.file.getvalue()


def train(runs, recipe, seed, accuracy):
    folder = make(runs, recipe, seed, valid_accuracy=accuracy)
    write_csv(folder / 'metrics.csv', ['epoch', 'valid_accuracy'], [[1, accuracy], [2, accuracy]])


def test_it_shows_total_progress_time_left_and_verdicts(tmp_path, monkeypatch):
    declare(tmp_path, 'pets', Declared('baseline,epochs=2', ('ls,epochs=2',), (3, 5), 0.008))
    recipes = [(find_recipe(name), dict(epochs=2)) for name in ('baseline', 'ls')]
    tasks = [task for task in plan(recipes, range(5), 'pets', tmp_path) if task.recipe.name != 'teacher']
    now = 100.0
    monkeypatch.setattr(board.time, 'monotonic', lambda: now)
    train(tmp_path, 'baseline,epochs=2', 0, 0.5)
    found = board.Board(tasks, {}, Console(file=io.StringIO(), width=80))
    assert '1 of 10 runs, 2 of 20 epochs\n' in shown(found) and 'against' not in shown(found)
    for seed in range(3):
        train(tmp_path, 'baseline,epochs=2', seed, 0.5 + seed / 1000)
        train(tmp_path, 'ls,epochs=2', seed, 0.6 + seed / 1000)
    now += 50  # 10 epochs in 50 seconds; 8 are left
    text = shown(found)
    assert '6 of 10 runs, 12 of 20 epochs, about 40 s left' in text
    assert 'against baseline,epochs=2: ls,epochs=2 better (+10.00 points, 3 seeds)' in text.replace('\n', ' ')
