"What can be known before training is an error before training."

import json
import shutil

import pytest
import rehearsals
from conftest import beside
from fastai.basics import Callback
from rehearsals import nets

from kdfast.core.errors import KdfastError
from kdfast.runs.recipes import find_recipe
from kdfast.training import rehearsal, room
from kdfast.training.execute import train

never_trained = pytest.fixture(rehearsals.never_trained)
temporary = pytest.fixture(rehearsals.temporary)


WRONG = [
    ('exp2 --hint stage2:stagetwo', 'no layer stagetwo'),
    ('exp1 --hint stagetwo:stage2', 'no layer stagetwo'),
    ('hint --hint stage2:head.1', 'no regressor maps guided features 88'),
    ('fitnets --hint stage2:nowhere', 'no layer nowhere'),
    ('at --layers stage2:stage2,stage3:x', 'no layer x'),
    ('reviewkd --layers stage1:y', 'no layer y'),
    ('crd --hint z:head.1', 'no layer z'),
    ('at --layers stage2', '--layers stage2 of at is out of range'),
    ('kd --teacher NETS:pair', 'expected 2×3'),
    ('kd --student NETS:pair', 'expected 2×3'),
    ('exp2 --student NETS:number', 'gave int'),
    ('baseline --student NETS:forgets', 'has different outputs after it is saved and loaded'),
    ('kd --teacher NETS:forgets', 'has different outputs'),
    ('baseline --student NETS:breaks', 'nets.py, line 27: RuntimeError: eight images'),
    ('kd --teacher NETS:breaks', 'nets.py, line 27: RuntimeError: eight images'),
    ('kd --student NETS:undefined', 'Undefined returns NaN for training images before its first step'),
    *(
        (f'kd --{role} NETS:{name}', f'has weights of {dtype}, expected float32 like its images')
        for name, dtype in dict(double='float64', half='float16', bfloat16='bfloat16').items()
        for role in ('student', 'teacher')
    ),
    ('kd --student NETS:counts', 'nets.py:counts changes calls in evaluation mode'),
    ('kd --student NETS:prepared', 'in evaluation mode, so that its outputs depend on earlier images'),
    ('exp2 --student NETS:detached --hint stage2:body.0', 'RuntimeError: element 0 of tensors does not require grad'),
]


@pytest.mark.parametrize('command,said', WRONG)
def test_errors_of_a_recipe_are_raised_before_training(
    kdfast, data, images, tmp_path, temporary, never_trained, command, said
):
    name, *options = command.replace('NETS', f'{tmp_path}/nets.py').split()
    nets(tmp_path, '')
    done = kdfast('run', name, *options, '--data', images, '--runs', tmp_path / 'runs')
    assert done.status == 2 and said in done.err and done.err.count('\n') == 1 and not (tmp_path / 'runs').exists(), (
        done.err
    )


FAULTS = [
    (
        'teacher = run.needs("teacher"); learn.fit(1, cbs=Distill(wide))',
        'line 7: TypeError: the teacher must be an nn.Module',
    ),
    ('learn.fit(1, cbs=Distill(run.needs("teacher"), T=-1))', 'line 7: ValueError: the temperature'),
    ('learn.fit(1, cbs=[Wrong()])', 'line 13: KeyError: no'),
    ('learn.fit(1, cbs=[Silent()])', 'line 15: AssertionError'),
    ('learn.fit(1); learn.no_such_thing()', "line 7: AttributeError"),
    ('learn.fit(1); return 5', 'mine.py: main returns int, expected'),
    ('pass', 'trained nothing'),
    ('import sys; sys.exit(0)', 'line 7: SystemExit: 0, expected main to return the Learner'),
    ('run.needs("techer")', 'no recipe techer; did you mean teacher?'),
    ('run.needs("teacher", epochs=0)', 'wide is not trained'),
    ('import nowhere', "ModuleNotFoundError: No module named 'nowhere'"),
    ('open("nowhere.txt")', 'nowhere.txt: No such file'),
    ('run.needs("FILE")', 'mine depends on itself'),
]


@pytest.mark.parametrize('body,said', FAULTS)
def test_an_error_of_a_recipe_names_its_file_and_line(
    kdfast, data, images, tmp_path, temporary, never_trained, body, said
):
    body = body.replace('FILE', str(tmp_path / 'mine.py'))
    (tmp_path / 'mine.py').write_text(
        f'"Mine."\nfrom kdfast.all import *\n\n\ndef main(run, epochs:int=1):\n'
        f'    learn = run.learner(run.build(thin))\n    {body}\n    return learn\n\n'
        'class Wrong(Callback):\n    order = 3\n    def after_loss(self):\n        raise KeyError("no")\n'
        'class Silent(Callback):\n    def after_pred(self): assert 1 == 2\n'
    )
    done = kdfast('run', tmp_path / 'mine.py', '--data', images, '--runs', tmp_path / 'runs')
    assert done.status == 2 and said in done.err and done.err.count('\n') == 1 and not (tmp_path / 'runs').exists(), (
        done.err
    )
    assert ('mine.py, line' in done.err) == ('line' in said or 'Error' in said)


# Room


def test_missing_disk_space_is_an_error_before_training(study, data, tmp_path, monkeypatch):
    "As much as a run takes: not less than it has at its largest, not three times as much"
    asked, taken, there = [], [], beside(study, tmp_path, 'teacher')
    monkeypatch.setattr(rehearsal, 'check_room', lambda kept_in, n: asked.append(n))

    def look():
        return sum(file.stat().st_size for file in there.rglob('*') if file.is_file())

    class Look(Callback):
        def after_step(self):
            taken.append(look())

    shutil.rmtree(there / 'tiny' / 'teacher' / '0' / 'outputs')
    before = look()
    train(find_recipe('kd'), data, 0, dict(epochs=2), there, [lambda _: Look()])
    largest = max(*taken, look()) - before
    assert largest <= asked[0] < 3 * largest


def test_a_full_disk_is_said_before_training(data, tmp_path, monkeypatch):
    usage = shutil.disk_usage
    monkeypatch.setattr(room.shutil, 'disk_usage', lambda path: usage(path)._replace(free=10**5))
    with pytest.raises(
        KdfastError,
        match=r'training needs about [\d.]+ MB in .* for weights and checkpoints, 0\.1 MB are free: '
        'free some space, or use --runs',
    ):
        train(find_recipe('baseline'), data, 0, {}, tmp_path / 'deep' / 'runs')
    assert not (tmp_path / 'deep').exists()


# Studies


def test_a_study_tries_every_recipe_once_and_names_all_that_fail(kdfast, images, tmp_path):
    (tmp_path / 'mine.py').write_text(
        f'"Mine."\nfrom kdfast.all import *\n\ndef main(run, epochs:int=1):\n'
        f'    with open("{tmp_path}/seen", "a") as f: print(run.rehearsal, run.seed, file=f)\n'
        '    learn = run.learner(run.build(thin))\n    learn.fit(1)\n    return learn\n'
    )
    wrong = [[name, dict(hint='stage2:stagetwo'), [0, 1]] for name in ('hint', 'exp1', 'fitnets')]
    done = kdfast(
        'rehearse',
        json.dumps([*wrong, [str(tmp_path / 'mine.py'), {}, [3]]]),
        '--data',
        images,
        '--runs',
        tmp_path / 'runs',
    )
    assert done.status == 2 and done.err.count('\n') == 1 and not (tmp_path / 'runs').exists(), done.err
    assert (
        'nothing was trained: hint,hint=stage2_stagetwo, exp1,hint=stage2_stagetwo, fitnets,hint=stage2_stagetwo: '
        in done.err
    )
    done = kdfast(
        'study', tmp_path / 'mine.py', '--seeds', 2, '--jobs', 1, '--data', images, '--runs', tmp_path / 'runs'
    )
    assert done.status == 0 and (tmp_path / 'seen').read_text().splitlines() == [
        'True 3',
        'True 0',
        'False 0',
        'False 1',
    ], done.err
