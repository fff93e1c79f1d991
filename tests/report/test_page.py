import base64
import hashlib
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from conftest import beside, make, seal

from kdfast.core.atomic import write_csv
from kdfast.report.page import page_style, render_page
from kdfast.runs.find import find_runs
from kdfast.runs.run_dir import RunDir

CLASSIFY = ('teacher', 'baseline', 'kd', 'exp1', 'exp2')


@pytest.fixture(scope='module')
def page(study, kdfast, tmp_path_factory):
    file = tmp_path_factory.mktemp('page') / 'report.html'
    done = kdfast('report', '--runs', study.parent, '--data', 'tiny', '--out', file)
    assert done.status == 0, done.err
    return file.read_text()


def numbers(page, id):
    "Heading and text of each cell, by recipe"
    table = re.search(f'id="{id}">(.*?)</table>', page, re.S)[1]
    rows = re.findall('<tr><th scope="row">(.*?)</th>(.*?)</tr>', table)
    return {name: dict(re.findall('<td data-label="(.*?)">(.*?)</td>', cells)) for name, cells in rows}


def test_the_numbers_on_the_page_are_those_of_the_results(page, study):
    scores, costs, losses = (numbers(page, id) for id in ('table', 'table-2', 'table-3'))
    recipes = {folder.name for folder in study.iterdir()}
    assert set(scores) == set(costs) == set(losses) == recipes
    for recipe in recipes:
        result = json.loads((study / recipe / '0' / 'result.json').read_text())
        accuracy = result['valid_accuracy']
        assert scores[recipe]['validation accuracy'] == ('–' if accuracy is None else f'{100 * accuracy:.2f} %')
        assert losses[recipe]['training loss'] == f'{result["train_loss"]:.3f}'
        assert costs[recipe]['latency (1 image)'] == f'{1e3 * result["latency"]:.2f} ms'


def test_the_interactive_curves_have_the_numbers_of_the_runs(page, study):
    charts = [json.loads(text) for text in re.findall('<script type="application/json">(.*?)</script>', page)]
    titles = re.findall('<figcaption>([^<]*)</figcaption><svg', page)
    assert len(charts) == len(titles) == len(set(titles)) > 5
    chart = charts[titles.index('accuracy, validation images, by epoch')]
    for line in chart['recipes']:
        rows = RunDir(study / line['recipe'] / '0').metrics()
        assert line['seeds'] == [] and line['mean']['x'] == [*range(1, len(rows) + 1)]
        assert line['mean']['y'] == pytest.approx([float(row['valid_accuracy']) for row in rows], rel=1e-3)
    assert {line['recipe'] for line in chart['recipes']} == set(CLASSIFY)


def test_the_page_needs_nothing_from_elsewhere(page):
    without_script = re.sub('<(script|pre).*?</\\1>', '', page, flags=re.S)
    assert not re.search(r'(src|href)\s*=\s*"(?!data:|#)|url\(|@import', without_script)
    assert not re.search(r'fetch\(|XMLHttpRequest|import\(|WebSocket', page)
    assert len(page) < 2e6


def test_the_keys_have_the_colors_of_their_lines():
    "`border-top` resets the color: its rule comes before those of the colors. tests/slow/page.py looks in a browser"
    style = page_style()
    assert 0 < style.index('.key { ') < style.index('.c0 { ')


def test_the_policy_allows_the_script_of_the_page_alone(page):
    (script,) = re.findall('<script>(.*?)</script>', page, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page


def test_the_page_has_every_section(page, study):
    for said in (
        'validation accuracy',
        'Against the baseline',
        'accuracy, validation images, by epoch',
        'soft loss, training images, by step',
        'fit loss, training images, by epoch',
        'teacher, baseline</h3>',
        'Accuracy by class',
        'actual \\ predicted',
        'data_sha256',
        '<code class="command">kdfast run exp1 --data ',
    ):
        assert said in page, said
    links = re.findall('<a href="#(.*?)">', page)
    assert links == ['answer', 'figures', 'curves', 'analyses', 'classes', 'errors', 'provenance']
    assert all(f'id="{link}"' in page for link in links)
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
    assert '<script>alert' not in page and '<img src=x' not in page and '<b>x' not in page
    assert '&lt;script&gt;alert(1)' in page


def test_the_answer_comes_first(tmp_path, kdfast):
    from test_lookup import finish
    from test_matrix import make_all

    make_all(tmp_path)
    finish(tmp_path)
    done = kdfast('report', '--runs', tmp_path, '--out', tmp_path / 'r.html')
    assert done.status == 0, done.err
    page = (tmp_path / 'r.html').read_text()
    assert 0 < page.index('Experiment 1: undecided.') < page.index('Key figures</h2>')
    assert re.search('exp1,<wbr> control</th>.*\n.*<td class="verdict alike">alike', page)


def test_it_says_what_runs_differ_in_and_which_command_trains_other_code(tmp_path, kdfast):
    from test_lookup import finish

    how = dict(recorded=dict(images=dict(source='digits')), right=[1] * 60 + [0] * 40)
    old = make(tmp_path, 'baseline', 0, **how)
    old.set_status('finished', arguments=old.run['arguments'] | dict(epochs=32))
    (old / 'recipe.py').write_text((old / 'recipe.py').read_text() + 'CHANGED = True\n')
    make(tmp_path, 'kd', 0, **how)
    seal(old)
    finish(tmp_path)
    done = kdfast('report', '--runs', tmp_path, '--out', tmp_path / 'r.html')
    assert done.status == 0, done.err
    page = (tmp_path / 'r.html').read_text()
    assert 'differ in epochs, which may affect the results: 32: baseline; 6: kd' in page
    assert 'also differ in epochs, which may affect the results' in page
    assert 'kdfast run baseline --data digits --seed 0 --epochs 32<' in page
    assert page.count('has changed since: the command trains') == 1


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
    assert done.stdout.count('class="uplot') == done.stdout.count('<script type="application/json"') > 5
    assert 'aria-pressed' in done.stdout


@pytest.mark.parametrize('n', [1, 2, 6])
def test_the_headline_is_that_of_one_baseline_and_short(tmp_path, monkeypatch, n):
    "The one with the most seeds; the others are in closed sections, and all recipes in the tables"
    monkeypatch.setattr('kdfast.report.page.analysis_sections', lambda _: [])  # the runs have no curves
    names = [f'baseline,epochs=9,student=nets.py_number{i}' for i in range(n)]
    others = [f'at,epochs=9,student=nets.py_tiny,layers=end_end{i}' for i in range(9)]
    for name in [*names, *others]:
        for seed in range(3 if name in (names[-1], *others) else 2):
            how = dict(right=[1] * (60 + seed) + [0] * (40 - seed), valid_accuracy=0.6)
            make(tmp_path, name, seed, **how)
    page = render_page(find_runs(tmp_path), tmp_path)
    headline = re.findall('<p class="answer">(.*?)</p>', page)
    assert sum(map(len, headline)) < 500 and 'epochs=9' not in ''.join(headline)
    assert ''.join(headline).count('points)') == 5 and f' and {n - 1 + 9 - 5} more.' in ''.join(headline)
    assert page.index(f'Against the baseline: {names[-1]}</h2>') < page.index('Key figures</h2>')
    assert page.count('<details><summary>Against the baseline: ') == n - 1
    assert ('no other baseline has more seeds' in page) == (n > 1)
    assert all(page.count(name.replace(',', ',<wbr>')) >= n - (name in names) for name in [*names, *others])
