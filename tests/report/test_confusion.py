import shutil

import numpy as np
import pytest
from conftest import make, seal
from rich.console import Console
from test_summary import teach

from kdfast.analysis.confusion import confusion_summary
from kdfast.core.errors import KdfastError
from kdfast.report.classes import class_accuracy_rows
from kdfast.report.confusion import confusion_view
from kdfast.runs.find import find_runs
from kdfast.stats.intervals import mcnemar

ACTUAL = [0] * 10 + [1] * 10 + [2] * 4


def run(runs, recipe, predicted, actual=ACTUAL, classes='abc', more={}):
    "A run whose confusion matrix is that of its predictions"
    matrix = np.zeros((3, 3), int)
    for a, p in zip(actual, predicted):
        matrix[a][p] += 1
    folder = make(runs, recipe, 0, confusion=matrix.tolist(), classes=classes, **more)
    np.savez(folder / 'predictions.npz', actual=actual, predicted=predicted)
    return folder


@pytest.fixture
def mine(tmp_path):
    return run(tmp_path, 'exp2', [0] * 8 + [1] * 2 + [1] * 5 + [0] * 5 + [2] * 4)


@pytest.fixture
def other(tmp_path):
    return run(tmp_path, 'teacher', [0] * 9 + [1] + [0] + [1] * 9 + [2] * 3 + [1])


def test_one_run_by_hand(mine):
    found = confusion_summary(mine)
    assert found['confusion'] == [[8, 2, 0], [5, 5, 0], [0, 0, 4]] and found['shares'][0] == [0.8, 0.2, 0]
    assert found['class_accuracy'] == dict(a=0.8, b=0.5, c=1.0)
    assert found['worst_pairs'] == [['b', 'a', 5], ['a', 'b', 2]] and found['most_alike'] == ['a', 'b', 7]


def test_beside_another_by_hand(mine, other):
    found = confusion_summary(mine, other)
    assert found['against_class_accuracy'] == dict(a=0.9, b=0.9, c=0.75) and found['against_worst_pairs'] == [
        ['b', 'a', 1],
        ['a', 'b', 1],
    ]
    assert (found['only_right'], found['only_against_right'], found['images']) == (2, 6, 24)
    assert found['agreement'] == pytest.approx(16 / 24)
    uncorrected = mcnemar(
        [1] * 5 + [0] * 5, [0] + [1] * 9
    )  # class b: one image only this run has right, five only the other
    assert found['class_p']['b'] == pytest.approx(3 * uncorrected) and found['class_p']['a'] == 1


def test_what_is_seen(mine, other):
    console = Console(width=80, record=True, file=open('/dev/null', 'w'))
    console.print(confusion_view(confusion_summary(mine, other), ('exp2', 'teacher'), 80))
    console.print(confusion_view(confusion_summary(mine), ('exp2', None), 80, as_shares=True))
    text = console.export_text()
    assert 'exp2 is more accurate than teacher in: c.' in text and 'Significant (p < 0.05) in: no class.' in text
    assert 'Most confused, both directions together: a and b, 7 images.' in text and '80.0  20.0     ·' in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_names_of_classes_are_text_and_no_markup(tmp_path):
    console = Console(width=80, record=True, file=open('/dev/null', 'w'))
    console.print(
        confusion_view(
            confusion_summary(run(tmp_path, 'kd', [1] * 24, classes=['[red]x', '[/b]', 'c'])), ('kd', None), 80
        )
    )
    assert '[red]x → [/b]' in console.export_text()


def test_other_classes_or_images_do_not_compare(mine, tmp_path):
    for wrong in (dict(classes='xyz'), dict(actual=ACTUAL[::-1])):
        with pytest.raises(KdfastError, match='only runs on the same data compare'):
            confusion_summary(mine, run(tmp_path / 'zoo', 'kd', [0] * 24, **wrong))


@pytest.mark.parametrize('state', ['beside', 'renamed', 'elsewhere', 'gone', 'unreadable', 'unknown'])
@pytest.mark.parametrize('beside_default', [True, False])
def test_the_page_shows_a_student_beside_its_own_teacher(tmp_path, state, beside_default):
    "Not beside the run that has the name `teacher`; without its own, the next student takes its place"
    home = tmp_path / ('elsewhere' if state == 'elsewhere' else 'runs')
    own = run(home, 'teacher,epochs=5', [0] * 24)
    student = run(tmp_path / 'runs', 'kd', ACTUAL, more=dict(teacher_sha256='1'))
    if state != 'unknown':
        teach(student, own)
    if beside_default:
        default = run(tmp_path / 'runs', 'teacher', [1] * 24)
        (default / 'weights.safetensors').write_bytes(b'others')
        seal(default)
        run(tmp_path / 'runs', 'baseline', ACTUAL[::-1])
    name = own.recipe
    if state == 'renamed':
        name = 'renamed'
        own.path.parent.rename(own.path.parent.with_name(name))
    elif state == 'gone':
        shutil.rmtree(own.path)
    elif state == 'unreadable':
        (own / 'predictions.npz').unlink()
    found = class_accuracy_rows(find_runs(tmp_path / 'runs'))
    if state in ('beside', 'renamed', 'elsewhere'):
        assert (found['student'], found['teacher']) == ('kd', name) and found['rows'][0][2] == 1
        assert found['sentences'][0].startswith(f'kd is more accurate than {name} in')
    elif beside_default:
        assert (found['student'], found['teacher']) == ('baseline', 'teacher')
    else:
        assert found is None
