import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from conftest import beside, seal

from kdfast.core.atomic import write_csv
from kdfast.runs.run_dir import RunDir

CLASSIFY = ('teacher', 'baseline', 'kd', 'exp1', 'exp2')


@pytest.fixture(scope='module')
def page(study, kdfast, tmp_path_factory):
    file = tmp_path_factory.mktemp('page') / 'report.html'
    done = kdfast('report', '--runs', study.parent, '--data', 'tiny', '--out', file)
    assert done.status == 0, done.err
    return file.read_text()


def test_the_numbers_on_the_page_are_those_of_the_results(page, study):
    table = re.search('<table id="table">(.*?)</table>', page, re.S)[1]
    cells = {
        row[0]: row[1:]
        for row in (
            [re.sub('<.*?>', '', c) for c in re.findall('<t[hd]>(.*?)</t[hd]>', line)]
            for line in table.split('<tr')[1:]
        )
    }
    for column, recipe in enumerate(cells['']):
        result = json.loads((study / recipe / '0' / 'result.json').read_text())
        accuracy, loss = result['valid_accuracy'], result['train_loss']
        assert cells['validation accuracy'][column] == ('–' if accuracy is None else f'{100 * accuracy:.2f} %')
        assert cells['training loss'][column] == f'{loss:.3f}'


def test_the_page_needs_nothing_from_elsewhere(page):
    assert (
        not re.search(r'(src|href)\s*=\s*"(?!data:)', page)
        and 'http' not in re.sub(r'<pre>.*?</pre>', '', page, flags=re.S)
        and '<script' not in page
    )
    assert len(page) < 2e6


def test_the_page_has_every_section(page, study):
    for said in (
        'Does the regressor that a hint needs',
        'No answer from these runs',
        'validation accuracy',
        'Against the baseline',
        'accuracy, validation images, by epoch',
        'soft loss, training images, by step',
        'fit loss, training images, by epoch',
        'teacher, baseline</h3>',
        'Accuracy by class',
        'actual \\ predicted',
        'data_sha256',
    ):
        assert said in page, said
    assert (
        page.count('<img')
        >= sum(len(np.load(study / recipe / '0' / 'confused.npz')['index']) for recipe in CLASSIFY)
        > 0
    )


def test_the_gallery_shows_what_was_confused(study, data):
    for recipe in CLASSIFY:
        kept, predictions = (
            np.load(study / recipe / '0' / 'confused.npz'),
            np.load(study / recipe / '0' / 'predictions.npz'),
        )
        for image, index, actual, predicted in zip(kept['images'], kept['index'], kept['actual'], kept['predicted']):
            assert (image == data.valid[0][index]).all() and actual != predicted
            assert predictions['actual'][index] == actual and predictions['predicted'][index] == predicted


def test_a_teacher_of_other_epochs_is_beside_its_student(study, kdfast, tmp_path):
    beside(study, tmp_path, 'exp2', 'teacher')
    (tmp_path / 'tiny' / 'teacher').rename(tmp_path / 'tiny' / 'teacher,epochs=14')
    assert kdfast('report', '--runs', tmp_path, '--out', tmp_path / 'r.html').status == 0
    assert 'Accuracy by class: exp2' in (tmp_path / 'r.html').read_text()


def test_names_from_the_data_are_text(study, kdfast, tmp_path):
    folder = RunDir(tmp_path / '<b>x' / 'kd' / '0')
    shutil.copytree(study / 'kd' / '0', folder.path)
    header = ['<script>alert(1)</script>', '"><img src=x>', 'c']
    write_csv(folder / 'confusion.csv', ['', *header], ([name, 1, 2, 3] for name in header))
    seal(folder)
    assert kdfast('report', '--runs', tmp_path, '--out', tmp_path / 'r.html').status == 0
    page = (tmp_path / 'r.html').read_text()
    assert (
        '<script' not in page and '<img src=x' not in page and '<b>x' not in page and '&lt;script&gt;alert(1)' in page
    )


def test_the_answer_comes_first(tmp_path, kdfast):
    from test_lookup import finish
    from test_matrix import make_all

    make_all(tmp_path)
    finish(tmp_path)
    done = kdfast('report', '--runs', tmp_path, '--out', tmp_path / 'r.html')
    assert done.status == 0, done.err
    page = (tmp_path / 'r.html').read_text()
    assert 0 < page.index('Experiment 1: undecided.') < page.index('the table') and 'exp1, control: alike' in page


@pytest.mark.parametrize(
    'arguments,said',
    [(['--data', 'nothing'], 'no finished run'), (['--out', 'nowhere/r.html'], 'nowhere is not a directory')],
)
def test_what_is_wrong(study, kdfast, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    done = kdfast(
        'report', '--runs', study.parent, *(arguments if '--data' in arguments else ['--data', 'tiny', *arguments])
    )
    assert done.status == 2 and said in done.err and not list(tmp_path.iterdir())


@pytest.mark.skipif(not shutil.which('chromium'), reason='chromium is not installed')
def test_a_browser_shows_it_without_a_complaint_or_a_request(page, study, tmp_path):
    (tmp_path / 'r.html').write_text(page)
    command = [
        'chromium',
        '--headless',
        '--no-sandbox',
        '--disable-gpu',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
        f'--user-data-dir={tmp_path / "profile"}',
        '--enable-logging=stderr',
        '--dump-dom',
        (tmp_path / 'r.html').as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert 'CONSOLE' not in done.stderr
    for recipe in CLASSIFY:
        assert f'{100 * RunDir(study / recipe / "0").result["valid_accuracy"]:.2f} %' in done.stdout
    assert not re.search(r'(src|href)="(?!data:|#)|url\(|@import', page)  # nothing that it could ask for
