"A run directory of which a file is lost or damaged is named with what is wrong and what to do, by every command."

import json
import shutil

import numpy as np
import pytest
from conftest import make, seal

from kdfast.core.errors import KdfastError
from kdfast.report import figures
from kdfast.runs.run_dir import RunDir, locate_run

FLAWS = {  # content of run.json, and what is said of it
    'lost': (None, 'has no run.json'),
    'no file': ('a directory', 'cannot be read'),
    'empty': (b'', 'is damaged'),
    'no JSON': (b'{"status": "finished"', 'is damaged'),
    'no text': (b'\xff\xfe\x00', 'is damaged'),
    'too deep': (b'[' * 100_000, 'is damaged'),
    'a list': (b'[]', 'it holds no object'),
    'a number': (b'5', 'it holds no object'),
    'nothing': (b'{}', 'unknown state'),
    'null': (b'{"status": null}', 'unknown state'),
    'odd state': (b'{"status": "paused"}', 'unknown state paused'),
    'number as state': (b'{"status": 5}', 'unknown state 5'),
    'list as state': (b'{"status": ["finished"]}', 'unknown state'),
    'arguments': (b'{"status": "finished", "arguments": 5}', 'arguments is wrong'),
    'files': (b'{"status": "finished", "files": []}', 'files is wrong'),
}


@pytest.fixture(params=FLAWS)
def flawed(request, tmp_path):
    "Runs of which one is damaged; what is said of it"
    for recipe in ('baseline', 'kd'):
        for seed in (0, 1):
            more = dict(train_accuracy=0.9, best_valid_accuracy=0.9, train_loss=0.1)
            make(tmp_path, recipe, seed, right=[1] * 60 + [0] * 40, confusion=[[60, 40], [0, 0]], **more)
    damage(tmp_path / 'pets' / 'kd' / '1' / 'run.json', FLAWS[request.param][0])
    return tmp_path, FLAWS[request.param][1]


def damage(file, content):
    file.unlink()
    if content == 'a directory':
        file.mkdir()
    elif content is not None:
        file.write_bytes(content)


def words(done):
    return ' '.join((done.out + done.err).split())


@pytest.mark.parametrize('form', [[], ['--json'], ['--csv'], ['--against', 'baseline']])
def test_the_comparison_has_the_others_and_names_it(flawed, kdfast, form):
    runs, said = flawed
    done = kdfast('compare', '--runs', runs, *form)
    assert done.status == 0 and 'kd' in done.out, done.err
    assert said in words(done) and 'pets/kd/1' in words(done).replace(' ', ''), words(done)
    assert 'run it again' in words(done) or 'make it a readable file' in words(done)


def test_lists_and_pages_name_it(flawed, kdfast):
    runs, said = flawed
    listed = kdfast('ls', '--runs', runs)
    assert listed.status == 0 and 'unknown state' in listed.out and listed.out.count('60.00 %') == 3, listed.err
    [found] = [run for run in json.loads(kdfast('ls', '--json', '--runs', runs).out)['runs'] if not run['status']]
    assert said in found['reason'] and found['path'].endswith('pets/kd/1')
    assert kdfast('report', '--runs', runs, '--out', runs / 'r.html').status == 0
    page = (runs / 'r.html').read_text()
    assert said in page and 'seed 1: unknown state' in page
    checked = kdfast('check', runs)
    assert checked.status == 2 and said in checked.out and '1 of 4 runs are damaged' in checked.err
    assert 'Expecting value' not in checked.out + listed.out and 'move it away' not in checked.out  # said once, below
    assert checked.out.count('complete') == 3


@pytest.mark.parametrize('command', [['confusion'], ['export', '--to', 'x.onnx'], ['predict', 'x.png']])
def test_a_command_for_one_run_refuses_it(flawed, kdfast, command):
    runs, said = flawed
    name, *more = command
    for asked in ([runs / 'pets' / 'kd' / '1'], ['kd', '--seed', 1, '--runs', runs]):
        done = kdfast(name, asked[0], *more, *asked[1:])
        assert done.status == 2 and said in done.err and done.err.count('\n') == 1, done.err


def test_nothing_is_trained_into_it(flawed):
    runs, said = flawed
    with pytest.raises(KdfastError, match=said):
        locate_run(runs, 'pets', 'kd', 1)
    with pytest.raises(KdfastError, match=said):
        RunDir(runs / 'pets' / 'kd' / '1').start({}, '')
    assert (runs / 'pets' / 'kd' / '1' / 'result.json').exists()


def test_folders_of_numbers_that_are_no_runs_are_none(tmp_path, kdfast):
    make(tmp_path, 'kd', 0, right=[1] * 6)
    for name in ('1', '2'):
        (tmp_path / 'digits' / 'train' / name).mkdir(parents=True)
        (tmp_path / 'digits' / 'train' / name / 'x.png').write_bytes(b'')
    done = kdfast('compare', '--runs', tmp_path)
    assert done.status == 0 and 'digits' not in words(done)


@pytest.mark.parametrize('key', ['recipe', 'data', 'seed', 'teacher_sha256'])
@pytest.mark.parametrize('command', [['compare'], ['ls'], ['report'], ['confusion', 'kd']])
def test_a_result_without_what_all_have_is_named(tmp_path, kdfast, monkeypatch, command, key):
    "Of an earlier version, which recorded no checksums"
    monkeypatch.chdir(tmp_path)
    folder = make(tmp_path / 'runs', 'kd', 0, right=[1] * 6, confusion=[[6, 0], [0, 0]])
    result = {name: value for name, value in folder.result.items() if name != key}
    (folder / 'result.json').write_text(json.dumps(result))
    (folder / 'run.json').write_text(json.dumps(folder.run | dict(files={})))
    done = kdfast(*command)
    assert done.status == (0 if command == ['ls'] else 2), done.err  # all others need a finished run
    assert f'kd/0/result.json is damaged ({key} is missing)'.replace(' ', '') in ''.join((done.out + done.err).split())


# Other files of finished runs

DAMAGES = {  # what happens to a file
    'truncated': lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    'emptied': lambda file: file.write_bytes(b''),
    'changed': lambda file: file.write_bytes(file.read_bytes()[:-5] + b'?' + file.read_bytes()[-4:]),
    'of another type': lambda file: file.write_bytes(b'{"status": []}'),
    'lost': lambda file: file.unlink(),
    'a directory': lambda file: (file.unlink(), file.mkdir()),
}
READ_BY = {  # commands that read a file of each run
    'result.json': ('ls', 'ls --json', 'compare', 'compare --json', 'compare --csv', 'compare --against', 'report'),
    'metrics.csv': ('report',),
    'steps.csv': ('report',),
    'predictions.npz': ('compare --against', 'report'),
    'confusion.csv': ('report',),
    'confused.npz': ('report',),
    'weights.safetensors': (),
}
COMMANDS = dict.fromkeys(READ_BY['result.json'])


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    "Runs with all files of the study; those of three recipes are left"
    runs = tmp_path_factory.mktemp('whole') / 'runs'
    for recipe in ('baseline', 'kd', 'exp1'):
        more = dict(train_accuracy=0.9, best_valid_accuracy=0.9, train_loss=0.1, seconds=9.0)
        folder = make(runs, recipe, 0, right=[1] * 60 + [0] * 40, confusion=[[60, 40], [0, 0]], **more)
        (folder / 'metrics.csv').write_text('epoch,valid_accuracy\n1,0.5\n2,0.6\n')
        (folder / 'steps.csv').write_text('step,total\n1,0.5\n2,0.25\n')
        (folder / 'weights.safetensors').write_bytes(b'w' * 64)
        images = np.zeros((2, 8, 8, 3), np.uint8)
        np.savez(folder / 'confused.npz', images=images, actual=np.zeros(2, int), predicted=np.ones(2, int))
        seal(folder)
    return runs


@pytest.mark.parametrize('checksums', [True, False])  # runs of earlier versions have none
@pytest.mark.parametrize('how', DAMAGES)
@pytest.mark.parametrize('name', READ_BY)
def test_one_damaged_file_stops_no_command_that_reads_all_runs(whole, kdfast, tmp_path, name, how, checksums):
    if not checksums and how in ('truncated', 'changed', 'of another type'):
        return  # may be a file as any other
    shutil.copytree(whole, runs := tmp_path / 'runs')
    folder = RunDir(runs / 'pets' / 'kd' / '0')
    if not checksums:
        (folder / 'run.json').write_text(json.dumps(folder.run | dict(files={})))
    DAMAGES[how](folder / name)
    before = content_of(folder.path)
    needs_record = name not in ('result.json', 'predictions.npz', 'confusion.csv')  # to know that there was a file
    for command in COMMANDS:
        done, shown = shown_by(kdfast, runs, command)
        assert done.status == 0 and 'exp1' in shown and 'Traceback' not in done.err, (command, done.err)
        if command in READ_BY[name] and (checksums or not needs_record):
            assert is_named(shown, name), (command, shown[:2000])
    checked = kdfast('check', runs)
    assert checked.out.count('complete') == 3 - ('1 of 3 runs are damaged' in checked.err), checked.out
    assert checked.status == 2 or not checksums and name != 'result.json'
    assert 'delete' not in checked.out + checked.err and content_of(folder.path) == before


def content_of(folder):
    return {str(file): file.read_bytes() if file.is_file() else None for file in sorted(folder.rglob('*'))}


def is_named(shown, name):
    "Whether a text that may be broken into lines says what is wrong with a file of the run"
    packed = ''.join(shown.split())
    problems = 'haschangedsinceitwaswritten', 'ismissing', 'cannotberead', 'isdamaged'
    return 'kd' in packed and any(name + problem in packed for problem in problems)


def shown_by(kdfast, runs, command):
    "What a command prints or writes, with its status"
    words = [*command.split(), *(['baseline'] if command.endswith('--against') else [])]
    words += ['--out', runs / 'page.html'] if command == 'report' else []
    done = kdfast(*words, '--runs', runs)
    written = (runs / 'page.html').read_text() if command == 'report' and not done.status else ''
    return done, done.out + done.err + written


@pytest.mark.parametrize('how', DAMAGES)
@pytest.mark.parametrize('command', ['study baseline kd', 'matrix', 'worth'])
def test_a_study_refuses_a_run_that_has_lost_its_result(whole, kdfast, images, tmp_path, command, how):
    shutil.copytree(whole / 'pets', tmp_path / 'runs' / 'tiny')
    folder = tmp_path / 'runs' / 'tiny' / 'baseline' / '0'
    DAMAGES[how](folder / 'result.json')
    before = content_of(folder)
    done = kdfast(*command.split(), '--data', images, '--runs', tmp_path / 'runs')
    assert done.status == 2 and 'baseline/0/result.json' in done.err and 'Traceback' not in done.err, done.err
    assert content_of(folder) == before


def test_figures_of_notebooks_leave_out_what_is_damaged(whole, tmp_path):
    shutil.copytree(whole, runs := tmp_path / 'runs')
    for name in ('confusion.csv', 'metrics.csv'):
        (runs / 'pets' / 'kd' / '0' / name).write_text('')
    shown, matrices = figures.confusion(runs)._repr_html_(), figures.confusion(runs).data
    assert [matrix['recipe'] for matrix in matrices] == ['baseline', 'exp1']
    assert 'confusion.csv has changed since it was written' in shown and 'kd, seed 0' in shown
    assert 'metrics.csv has changed since it was written' in figures.curves(runs)._repr_html_()
