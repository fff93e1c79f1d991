import html
import json
import re
import shutil
from dataclasses import replace

import pytest
from conftest import make
from test_matrix import BASE, folder_name, make_all

from kdfast.analysis.design import declare
from kdfast.analysis.differences import differences_from
from kdfast.analysis.matrix import answer_question, question_design, questions_answered
from kdfast.core.atomic import escape_csv_cell, unescape_csv_cell, write_csv
from kdfast.core.errors import KdfastError
from kdfast.report.differences import difference_remarks
from kdfast.report.matrix import answer_sentences
from kdfast.report.tables import run_remarks
from kdfast.runs.find import changed_arguments, find_runs, resolve_run_name
from kdfast.runs.lookup import all_arguments, arguments_text, next_recipe, runs_by_seed, settings
from kdfast.runs.recipes import find_recipe


def rename(folder):
    "What it is called has nothing to do with what it did"
    folder.path.parent.rename(folder.path.parent.with_name('x' * 20))


def test_a_run_is_found_by_its_arguments_whatever_its_folder_is_called(tmp_path):
    make(tmp_path, 'kd,T=6.0,optimizer=sgd', 0)
    rename(make(tmp_path, 'kd,T=2.0', 1))
    make(tmp_path, 'exp1,T=2.0', 1)
    runs = find_runs(tmp_path)

    def seeds(**given):
        return list(runs_by_seed(runs, find_recipe('kd'), given))

    assert [seeds(T=6.0, optimizer='sgd'), seeds(T=2.0), seeds(T=6.0), seeds()] == [[0], [1], [], []]
    assert seeds(T=2.0, hint='a:b') == [1]  # kd has no hint
    assert [changed_arguments(f) for f in runs if f.run['recipe'] == 'kd'] == [
        dict(optimizer='sgd', T=6.0),
        dict(T=2.0),
    ]
    named = {asked: resolve_run_name(runs, asked) for asked in ('kd,T=2.0', 'kd,optimizer=sgd', 'kd,T=6.0')}
    assert named == {'kd,T=2.0': 'x' * 20, 'kd,optimizer=sgd': None, 'kd,T=6.0': 'kd,T=6.0,optimizer=sgd'}


def test_an_argument_that_a_recipe_has_got_since_was_at_its_default(tmp_path):
    folder = make(tmp_path, 'kd', 0)
    facts = folder.run
    del facts['arguments']['alpha']
    (folder / 'run.json').write_text(json.dumps(facts))
    assert list(runs_by_seed(find_runs(tmp_path), find_recipe('kd'), {})) == [0] and changed_arguments(folder) == {}


def copied(folder, name):
    "The directory of a recipe under another name"
    shutil.copytree(folder.path.parent, folder.path.parent.with_name(name))


@pytest.mark.parametrize(
    'recipe,student', [('exp1', 'matched'), ('exp2', 'thin'), ('baseline', 'thin'), ('hint', 'matched')]
)
def test_a_copy_beside_a_directory_never_counts(tmp_path, recipe, student):
    "Nor its seeds that the directory lacks"
    make_all(tmp_path)
    name = folder_name(recipe, dict(student=student))
    expected = answer_question(tmp_path, 'pets', range(4), {}, 0.008)
    [original] = [run for run in find_runs(tmp_path) if (run.recipe, run.seed) == (name, 2)]
    for other in ('a-old', f'{name}-old', 'zz'):
        copied(original, other)
        for seed in (0, 3):
            copy = make(tmp_path, name, 3, valid_accuracy=0.1)
            shutil.rmtree(tmp_path / 'pets' / other / str(seed), ignore_errors=True)
            copy.path.rename(tmp_path / 'pets' / other / str(seed))
    assert answer_question(tmp_path, 'pets', range(4), {}, 0.008) == expected
    assert questions_answered(find_runs(tmp_path), tmp_path, 0.008)[0]['effects'] == expected['effects']


def test_two_renamed_directories_are_named(tmp_path, kdfast):
    make_all(tmp_path)
    exp2 = tmp_path / 'pets' / 'exp2'
    shutil.copytree(exp2, exp2.with_name('old')), exp2.rename(exp2.with_name('older'))
    said = f'{tmp_path}/pets/old, {tmp_path}/pets/older hold runs of exp2: expected one directory'
    with pytest.raises(KdfastError, match=said):
        answer_question(tmp_path, 'pets', range(3), {}, 0.008)
    finish(tmp_path)
    assert said in html.unescape(page_of(kdfast, tmp_path))
    run = next(run for run in find_runs(tmp_path) if run.recipe == 'kd' or run.recipe == 'exp1')
    assert next_recipe(run, find_runs(tmp_path))[0] == 'kd'  # what comes next needs no choice


def test_sets_of_arguments(tmp_path):
    for seed in (0, 1):
        make(tmp_path, 'exp1,optimizer=sgd,student=matched', seed)
    make(tmp_path, 'exp1,student=matched', 0), make(tmp_path, 'exp1,student=matched,matrix=True', 0)
    found = settings(find_runs(tmp_path), but=('student', 'matrix'))
    assert sorted(map(arguments_text, found)) == ['', 'optimizer=sgd'] and len(found) == 2


@pytest.mark.parametrize(
    'more', [dict(optimizer='sgd'), dict(epochs=3), dict(epochs=3, optimizer='sgd', lr=0.1), dict(T=6.0)]
)
def test_the_page_answers_what_the_command_line_answers(tmp_path, more):
    make_all(tmp_path, more=more)
    expected = answer_question(tmp_path, 'pets', range(3), more, 0.008)
    assert questions_answered(find_runs(tmp_path), tmp_path, 0.008) == [expected] and expected['arguments'] == more
    assert [effect['raw']['verdict'] for effect in expected['effects']] == ['undecided', 'undecided']


def test_the_page_answers_for_each_set_of_arguments_and_says_which(tmp_path, kdfast):
    make_all(tmp_path)
    make_all(tmp_path, {key: [v / 2 for v in values] for key, values in BASE.items()}, more=dict(optimizer='sgd'))
    make(tmp_path, folder_name('exp1', dict(student='matched', epochs=5)), 0)  # alone, it answers nothing
    finish(tmp_path)
    found = {arguments_text(f['arguments']): f for f in questions_answered(find_runs(tmp_path), tmp_path, 0.008)}
    assert sorted(found) == ['', 'optimizer=sgd']
    page = page_of(kdfast, tmp_path)
    assert '<h3>optimizer=sgd</h3>' in page and '<h3>default arguments</h3>' in page
    assert page.count('Experiment 1: ') == 2
    for answer in found.values():
        assert all(text.plain in page for text in answer_sentences(answer))


def test_the_page_names_what_each_answer_judges(tmp_path, kdfast):
    "One question was declared with balanced accuracy, the other was not declared"
    make_all(tmp_path), make_all(tmp_path, more=dict(optimizer='sgd'))
    finish(tmp_path)
    declare(tmp_path, 'pets', replace(question_design(dict(optimizer='sgd'), (2, 3), 0.008), metric='balanced'))
    said = re.findall('<h3>(.*?)</h3>|in percentage points of validation (.*?)[.]', page_of(kdfast, tmp_path))
    answers = dict(zip([name for name, _ in said if name], [label for _, label in said if label]))
    assert answers['default arguments'] == 'accuracy' and answers['optimizer=sgd'] == 'balanced accuracy'


def test_the_page_compares_with_each_baseline_where_none_is_as_it_is(tmp_path, kdfast):
    for name in ('baseline,epochs=5', 'baseline,optimizer=sgd', 'kd,epochs=5'):
        make(tmp_path, name, 0, right=[1] * 60 + [0] * 40)
    finish(tmp_path)
    page = page_of(kdfast, tmp_path)
    assert 'Against the baseline: baseline,epochs=5' in page and 'Against the baseline: baseline,optimizer=sgd' in page


@pytest.mark.parametrize('seeds', [1, 2])
@pytest.mark.parametrize('file', ['confusion.csv', 'predictions.npz', 'metrics.csv'])
@pytest.mark.parametrize('recipe', ['baseline', 'kd'])
def test_the_page_says_which_files_are_missing_and_shows_the_rest(tmp_path, kdfast, file, recipe, seeds):
    for name in ('baseline', 'kd', 'exp1'):
        for seed in range(seeds):
            make(tmp_path, name, seed, right=[1] * 60 + [0] * 40)
    finish(tmp_path)
    (tmp_path / 'pets' / recipe / '0' / file).unlink()
    page = page_of(kdfast, tmp_path)
    assert f'{file} is missing, and what needs it is left out: {recipe}, seed 0' in page
    assert 'exp1: confusion matrix' in page and 'Against the baseline' in page and 'No recipe to compare' not in page
    assert ('Nothing to compare: ' in page) == ((recipe, file, seeds) == ('baseline', 'predictions.npz', 1))
    matrices = (recipe, 'exp1') if file != 'confusion.csv' or seeds == 2 else ('exp1',)
    assert all(f'{name}: confusion matrix' in page for name in matrices)


@pytest.mark.parametrize('seeds', [[0], [0, 1]])
def test_a_page_without_a_recipe_file(tmp_path, kdfast, seeds):
    "Which users may remove to resume a run nevertheless; seed 1 has it"
    images = dict(recorded=dict(images=dict(source='digits')), right=[1] * 60 + [0] * 40)
    for name in ('kd,epochs=3', 'baseline'):
        for seed in seeds:
            make(tmp_path, name, seed, status='finished' if seed or name == 'baseline' else 'interrupted', **images)
    finish(tmp_path)
    (tmp_path / 'pets' / 'kd,epochs=3' / '0' / 'recipe.py').unlink()
    page = page_of(kdfast, tmp_path)
    assert ('No command: recipe.py is missing' in page) == (seeds == [0])
    assert ('kdfast run kd --data digits --seed 1 --epochs 3' in page) == (seeds == [0, 1])
    (tmp_path / 'pets' / 'baseline' / '0' / 'recipe.py').unlink()
    assert 'baseline/0/recipe.py is missing' in kdfast('confusion', 'baseline,epochs=5', '--runs', tmp_path).err


def finish(runs):
    "With what a page wants of every run besides"
    for folder in [run for run in find_runs(runs) if run.finished]:
        classifies = folder.result['valid_accuracy'] is not None
        more = dict(train_accuracy=0.9, best_valid_accuracy=0.9, train_loss=0.1) if classifies else {}
        (folder / 'result.json').write_text(json.dumps(folder.parsed('result.json', json.loads) | more))
        write_csv(folder / 'metrics.csv', ['epoch', 'valid_accuracy'], [[1, 0.5]])
        if more:
            write_csv(folder / 'confusion.csv', ['', 'a', 'b'], [['a', 5, 1], ['b', 2, 5]])
        folder.record = folder.run
        folder.finish(json.loads((folder / 'result.json').read_text()))


def page_of(kdfast, runs):
    done = kdfast('report', '--runs', runs, '--out', runs / 'r.html')
    assert done.status == 0, done.err
    return (runs / 'r.html').read_text()


# What to run next


@pytest.mark.parametrize(
    'ran,others,expected',
    [
        ('kd', [], ('baseline', {})),
        ('kd', ['teacher'], ('baseline', {})),
        ('kd,epochs=7', ['teacher', 'baseline'], ('baseline', dict(epochs=7))),
        (
            'kd,epochs=7,optimizer=sgd,T=2.0',
            ['teacher,optimizer=sgd', 'baseline,epochs=7,optimizer=sgd'],
            ('exp1', dict(epochs=7, optimizer='sgd')),
        ),
        ('teacher,epochs=3', [], ('baseline', {})),
        ('kd', ['teacher', 'baseline', 'hint', 'exp1', 'exp2'], None),
        ('exp2,epochs=22,teacher=runs_x_0', ['baseline,epochs=22'], ('kd', dict(epochs=22, teacher='runs_x_0'))),
        ('teacher,epochs=3', ['baseline'], ('kd', dict(teacher='RUNS/pets/teacher,epochs=3/0'))),
        ('baseline,epochs=2', ['teacher,epochs=3'], ('kd', dict(epochs=2, teacher='RUNS/pets/teacher,epochs=3/0'))),
        ('baseline,epochs=2', ['teacher', 'teacher,epochs=3'], ('kd', dict(epochs=2))),
        ('baseline', ['teacher,epochs=3,wd=0.1'], ('kd', {})),
        ('pretrain,epochs=3,teacher=runs_x_0', [], ('finetune', dict(teacher='runs_x_0'))),
        ('pretrain,epochs=3', ['finetune'], None),
        ('finetune,epochs=3', [], ('baseline', dict(epochs=3))),
        ('at,epochs=3,student=matched', [], ('baseline', dict(epochs=3, student='matched'))),
    ],
)
def test_what_comes_next_is_run_like_what_was_run(tmp_path, ran, others, expected):
    folder = make(tmp_path, ran, 0)
    for name in others:
        make(tmp_path, name, 0)
    make(tmp_path, 'exp2', 1)
    if 'exp1' not in others:
        make(tmp_path, 'exp1', 0, status='failed')
    found = next_recipe(folder, find_runs(tmp_path))
    assert (found and json.loads(json.dumps(found).replace(str(tmp_path), 'RUNS'))) == (expected and list(expected))


OWN = '"Mine."\n\ndef main(run, epochs: int = {}, student: str = "{}", teacher: str = "{}"):\n    run.build(student)\n'


@pytest.mark.parametrize(
    'defaults,given,expected',
    [
        ((6, 'thin', 'wide'), {}, {}),
        ((6, 'nets.py:tiny', 'wide'), {}, dict(student='nets.py:tiny')),
        ((6, 'nets.py:tiny', 'wide'), dict(student='matched'), dict(student='matched')),
        ((6, 'nets.py:tiny', 'nets.py:large'), dict(student='thin'), dict(teacher='nets.py:large')),
        ((3, 'nets.py:tiny', 'nets.py:large'), {}, dict(epochs=3, student='nets.py:tiny', teacher='nets.py:large')),
    ],
)
def test_what_comes_next_has_the_networks_of_a_recipe_of_the_user(tmp_path, defaults, given, expected):
    "Whether they were given or are its defaults; baseline has no teacher"
    folder = make(tmp_path, 'mine', 0)
    (folder / 'recipe.py').write_text(OWN.format(*defaults))
    names = dict(zip(('epochs', 'student', 'teacher'), defaults))
    folder.set_status('finished', recipe='mine', arguments=names | given)
    of_baseline = {name: value for name, value in expected.items() if name != 'teacher'}
    assert next_recipe(folder, find_runs(tmp_path)) == ('baseline', of_baseline)
    words = ','.join(['baseline', *(f'{name}={value}' for name, value in of_baseline.items())])
    make(tmp_path, words.replace('nets.py:', 'nets.py_'), 0).set_status(
        'finished', arguments=all_arguments(find_recipe('baseline'), of_baseline)
    )
    assert next_recipe(folder, find_runs(tmp_path)) == ('kd', expected)


@pytest.mark.parametrize(
    'entries', [[dict(recipe='teacher', path='x', sha256='0')], dict(teacher=dict(path='x', sha256='0'))]
)
def test_the_teacher_that_a_run_had_is_not_suggested_whatever_the_format_of_its_record(tmp_path, entries):
    "Its arguments may be others than the run's, as with --teacher NETWORK, so that no run of it is found by them"
    folder = make(tmp_path, 'kd', 0)
    folder.set_status('finished', stands_on=entries)
    assert next_recipe(folder, find_runs(tmp_path)) == ('baseline', {})


# CSV


@pytest.mark.parametrize('name', ['=x', "'=x", "''=x", "'x", "'", '-1', '+', '@a', "'@a", '\ty', 'plain', "it's", ''])
def test_a_name_reads_back_as_it_was_and_does_nothing(tmp_path, name):
    assert unescape_csv_cell(escape_csv_cell(name)) == name and not escape_csv_cell(name).startswith(
        ('=', '+', '-', '@', '\t', '\r')
    )
    folder = make(tmp_path, 'kd', 0, confusion=[[1, 0], [0, 1]], classes=[name, 'b'])
    assert folder.confusion() == ([name, 'b'], [[1, 0], [0, 1]])


def test_printed_csv_does_nothing(tmp_path, kdfast):
    for name in ('=1+1', 'baseline'):
        make(tmp_path, name, 0, right=[1] * 60 + [0] * 40)
    for arguments in ([], ['--against', 'baseline']):
        done = kdfast('compare', '--csv', '--runs', tmp_path, *arguments)
        assert done.status == 0 and "'=1+1" in done.out and ',=1' not in done.out


# What makes runs differ besides their recipe


def test_runs_of_one_seed_that_were_computed_otherwise_are_named(tmp_path):
    how = dict(precision='float32', device='cpu', threads=1, versions=dict(torch='2.11', numpy='2.0'))
    make(tmp_path, 'baseline', 0, recorded=how, right=[1] * 50 + [0] * 50)
    make(tmp_path, 'kd', 0, recorded=how | dict(precision='bfloat16', device='NVIDIA H100'), right=[1] * 50 + [0] * 50)
    make(tmp_path, 'exp1', 0, recorded=how | dict(versions=dict(torch='2.14', numpy='2.0')), right=[1] * 50 + [0] * 50)
    make(tmp_path, 'exp2', 1, recorded=how | dict(threads=8), right=[1] * 50 + [0] * 50)  # of another seed: no partner
    said = [note for note in run_remarks(find_runs(tmp_path)) if note.startswith('runs of the same seed differ')]
    assert [note.split(' in ')[1].split(',')[0] for note in said] == ['device', 'precision', 'torch']
    assert 'float32: baseline, exp1' in said[1] and 'bfloat16: kd' in said[1] and '2.14: exp1' in said[2]
    rows = {row['recipe']: row for row in differences_from(find_runs(tmp_path), 'baseline', 0.008)}
    assert rows['kd']['differ_in'] == 'device, precision' and rows['exp1']['differ_in'] == 'torch'
    assert any('also differ in device, precision, torch,' in note for note in difference_remarks(list(rows.values())))


def test_runs_that_were_computed_alike_are_not(tmp_path):
    how = dict(precision='float32', device='cpu', threads=1, versions=dict(torch='2.11'))
    for recipe in ('baseline', 'kd'):
        make(tmp_path, recipe, 0, recorded=how)
    make(tmp_path, 'exp1', 0)  # an old run, of which nothing is known
    assert not any('differ in' in note for note in run_remarks(find_runs(tmp_path)))


def test_equal_accuracies_of_two_seeds_are_not_taken_for_certain(tmp_path):
    "Of 100 images; one image is a point"
    for recipe in ('baseline', 'kd'):
        for seed in (0, 1):
            make(tmp_path, recipe, seed, valid_accuracy=0.8, valid_images=100)
    [row] = differences_from(find_runs(tmp_path), 'baseline', 0.008)
    assert row['verdict'] == 'undecided' and (row['low'], row['high']) == pytest.approx((-0.127062, 0.127062), rel=1e-4)


def test_an_old_result_has_its_images_in_its_matrix(tmp_path):
    old = dict(valid_images=None, confusion=[[40, 10], [10, 40]])
    for recipe in ('baseline', 'kd'):
        for seed in (0, 1):
            make(tmp_path, recipe, seed, valid_accuracy=0.8, **old)
    [row] = differences_from(find_runs(tmp_path), 'baseline', 0.008)
    assert (row['low'], row['high']) == pytest.approx((-0.127062, 0.127062), rel=1e-4)
