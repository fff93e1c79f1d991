"Figures for notebooks display themselves, and have the numbers of the runs."

import re
import subprocess
import sys

import pytest
from conftest import make

from kdfast.core.atomic import write_csv
from kdfast.core.errors import KdfastError
from kdfast.report import figures

NAMES = ['<b>ape', 'bee']


@pytest.fixture
def runs(tmp_path):
    for recipe, accuracy in (('baseline', 0.7), ('kd', 0.8)):
        for seed in range(3):
            values = dict(valid_accuracy=accuracy + seed / 1000, train_loss=0.5)
            folder = make(tmp_path, recipe, seed, confusion=[[5, 1], [2, 4]], classes=NAMES, **values)
            write_csv(folder / 'metrics.csv', ['epoch', 'valid_accuracy'], [[1, 0.5], [2, accuracy]])
    return tmp_path


def test_they_show_the_numbers_and_escape_names(runs):
    for name in ('table', 'differences', 'curves', 'confusion'):
        html = getattr(figures, name)(runs)._repr_html_()
        assert html.startswith('<style>.kdfast-figure {') and 'baseline' in html and '<b>' not in html
        assert '<script' not in html and ':root' not in html
    found = figures.differences(runs)
    assert [(row['recipe'], row['verdict']) for row in found.data] == [('kd', 'better')] and '+10.00' in found.html
    assert '80.10 %' in figures.table(runs).html and '0.500' in figures.table(runs).html
    assert figures.curves(runs).data[0]['recipes'][1]['mean']['y'] == [0.5, 0.8]
    (matrix,) = figures.confusion(runs, 'kd').data
    assert matrix['n'] == 3 and re.search(r'data-n="18"', figures.confusion(runs, 'kd').html)


def test_what_is_wrong(runs, tmp_path):
    with pytest.raises(KdfastError, match='no finished run'):
        figures.table(tmp_path / 'nothing')
    with pytest.raises(KdfastError, match='there are baseline, kd'):
        figures.confusion(runs, 'exp1')
    make(runs, 'kd', 0, data='cars', valid_accuracy=0.5)
    with pytest.raises(KdfastError, match='choose one with data='):
        figures.table(runs)
    assert 'cars' not in figures.table(runs, data='pets').html


def test_they_need_no_torch():
    code = 'import sys, kdfast.report.figures; print("torch" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip() == 'False'
