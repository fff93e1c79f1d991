"A run directory whose run.json is lost or damaged is named with what is wrong and what to do, by every command."

import json

import pytest
from conftest import make

from kdfast.core.errors import KdfastError
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
    assert done.status == 2 and f'kd/0/result.json is damaged ({key} is missing)' in done.err, done.err
