"A made-up study of 1,000 classes: what it is shown by is in proportion to what can be read."

import json
import re

import numpy as np
import pytest
from conftest import make, seal

from kdfast.analysis.confusion import confusion_summary, part_of_matrix
from kdfast.core.atomic import write_csv
from kdfast.stats.confusion import hardest

CLASSES, EMPTY, TAKEN, FOR = (
    1000,
    5,
    907,
    12,
)  # no validation image shows class 5; class 907 is often taken for class 12
NAMES = [f'kind {c:03}' for c in range(CLASSES)]


def run(runs, recipe, accuracy):
    random = np.random.default_rng(len(recipe))
    actual = np.repeat(np.delete(np.arange(CLASSES), EMPTY), 10)
    predicted = np.where(random.random(len(actual)) < accuracy, actual, random.integers(0, CLASSES, len(actual)))
    predicted[actual == TAKEN] = FOR
    matrix = np.bincount(actual * CLASSES + predicted, minlength=CLASSES**2).reshape(CLASSES, CLASSES)
    share = float((actual == predicted).mean())
    folder = make(
        runs,
        recipe,
        0,
        valid_accuracy=share,
        valid_images=len(actual),
        train_accuracy=0.9,
        train_loss=0.1,
        best_valid_accuracy=share,
        best_epoch=1,
        worst_pairs=[[NAMES[TAKEN], NAMES[FOR], 10]],
    )
    write_csv(folder / 'confusion.csv', ['', *NAMES], ([name, *row] for name, row in zip(NAMES, matrix.tolist())))
    write_csv(folder / 'metrics.csv', ['epoch', 'valid_accuracy'], [[1, share]])
    np.savez(folder / 'predictions.npz', actual=actual, predicted=predicted)
    seal(folder)
    return folder


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    made = tmp_path_factory.mktemp('many') / 'runs'
    run(made, 'teacher', 0.8)
    run(made, 'exp2', 0.7)
    return made


@pytest.mark.parametrize('arguments', [[], ['--against', 'teacher'], ['--shares']])
def test_the_terminal_shows_what_can_be_read(runs, kdfast, arguments, monkeypatch):
    from kdfast.cli.app import out

    monkeypatch.setattr(out, 'width', 80)
    done = kdfast('confusion', 'exp2', '--runs', runs, *arguments)
    lines = done.out.splitlines()
    assert done.status == 0 and len(lines) < 90 and all(len(line) <= 80 for line in lines), done.err
    assert 'of 1,000 classes that are confused most; confusion.csv has all' in done.out
    assert f'{NAMES[TAKEN]} → {NAMES[FOR]}' in done.out
    assert any(line.startswith(NAMES[TAKEN]) and '10' in line for line in lines)
    assert ('the 40 that differ most' if '--against' in arguments else 'the 40 of lowest accuracy') in done.out
    if '--against' in arguments:
        assert re.search(r'is more accurate than teacher in: kind \d+.* and [\d,]+ more', ' '.join(lines))
    else:
        assert sum(line.startswith('kind') and '%' in line for line in lines) == 40


def test_numbers_are_whole(runs, kdfast):
    "All of the matrix, in numbers"
    done = kdfast('confusion', 'exp2', '--against', 'teacher', '--runs', runs, '--json')
    found = json.loads(done.out)
    matrix = np.array(found['confusion'])
    assert matrix.shape == (CLASSES, CLASSES) and matrix.sum() == found['images'] == 9990 and matrix[TAKEN, FOR] == 10
    assert [found['class_accuracy'][NAMES[c]] for c in (TAKEN, EMPTY)] == [0, None]
    assert found['class_p'][NAMES[EMPTY]] is None
    assert np.allclose(np.array(found['shares']).sum(1), np.arange(CLASSES) != EMPTY) and len(done.out) < 40e6
    assert found['worst_pairs'][0] == [NAMES[TAKEN], NAMES[FOR], 10]


def test_the_page_draws_a_part_and_says_so(runs, kdfast, tmp_path):
    done = kdfast('report', '--runs', runs, '--out', tmp_path / 'r.html')
    assert done.status == 0, done.err
    page = (tmp_path / 'r.html').read_text()
    assert len(page) < 1.2e6
    assert page.count('The 40 of 1,000 classes that are confused most; the whole matrix is in confusion.csv') == 2
    tables = [part.split('</table>')[0] for part in page.split('class="heat"')[1:]]
    assert [table.count('<td') for table in tables] == [40**2] * 2
    assert 'These are the 40 that differ most, of 1,000.' in page
    assert f'<span>{NAMES[TAKEN]}</span>' in page
    assert f'both directions together: {NAMES[FOR]} and {NAMES[TAKEN]},' in page


def test_the_part_that_is_drawn_by_hand():
    matrix = np.diag([9, 9, 9, 9, 9])
    matrix[0, 3], matrix[3, 0], matrix[1, 4], matrix[2, 1] = 2, 2, 3, 1  # together 4, 3, 1
    assert hardest(matrix, 2) == [0, 3] and hardest(matrix, 4) == [0, 3, 1, 4] and hardest(matrix, 9) == [0, 3, 1, 4, 2]
    counts, of_row = part_of_matrix(matrix, [0, 3])
    assert counts.tolist() == [[9, 2], [2, 9]]
    assert of_row[0].tolist() == pytest.approx([9 / 11, 2 / 11])  # of the whole row
    assert hardest(np.diag([1, 2, 3]), 2) == [0, 1]


def test_a_class_without_images_is_no_class_with_none_right(tmp_path, kdfast):
    folder = make(tmp_path, 'kd', 0, confusion=[[3, 1, 0], [0, 0, 0], [0, 2, 2]], classes='abc')
    assert confusion_summary(folder)['class_accuracy'] == dict(a=0.75, b=None, c=0.5)
    done = kdfast('confusion', 'kd', '--runs', tmp_path)
    assert done.status == 0 and re.search(r'^b +– *$', done.out, re.M)
