"Untrusted files are read, never executed: payloads in every file of a run, and names that are markup or formulas."

import ast
import hashlib
import io
import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import beside, make

ROOT = Path(__file__).parents[1]
FILES = [
    'weights.safetensors',
    'predictions.npz',
    'confused.npz',
    'run.json',
    'result.json',
    'confusion.csv',
    'metrics.csv',
    'steps.csv',
]


class Payload:
    "Touches the canary when it is unpickled"

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def payloads(canary):
    plain, array, zipped = pickle.dumps(Payload(canary)), io.BytesIO(), io.BytesIO()
    np.save(array, np.array([Payload(canary)], object), allow_pickle=True)
    np.savez(
        zipped,
        actual=np.array([Payload(canary)], object),
        predicted=np.array([Payload(canary)], object),
        images=np.array([Payload(canary)], object),
    )
    return dict(pickle=plain, npy=array.getvalue(), npz=zipped.getvalue())


def forge(folder, file, content):
    "Replace a file of a run, and its checksum as well"
    (folder / file).write_bytes(content)
    if file != 'run.json':
        record = json.loads((folder / 'run.json').read_text())
        record['files'][file] = hashlib.sha256(content).hexdigest()
        (folder / 'run.json').write_text(json.dumps(record))


@pytest.mark.parametrize('file', FILES)
@pytest.mark.parametrize('kind', ['pickle', 'npy', 'npz'])
def test_no_file_of_a_run_is_obeyed(study, kdfast, images, tmp_path, file, kind):
    runs, canary = beside(study, tmp_path / 'runs', 'teacher', 'baseline', 'exp2'), tmp_path / 'canary'
    for recipe in ('teacher', 'baseline'):
        forge(runs / 'tiny' / recipe / '0', file, payloads(canary)[kind])
    for command in (
        ['compare'],
        ['compare', '--against', 'exp2'],
        ['confusion', 'exp2', '--against', 'baseline'],
        ['report', '--out', tmp_path / 'r.html'],
        ['check', runs],
        ['run', 'kd', '--epochs', 1, '--data', images],
    ):
        done = kdfast(*command, *(['--runs', runs] if command[0] != 'check' else []))
        assert done.status in (0, 2), (command, done.err)
    assert not canary.exists()


@pytest.mark.parametrize('kind', ['pickle', 'npy', 'npz'])
def test_nor_are_a_checkpoint_and_remembered_outputs(study, kdfast, images, tmp_path, kind):
    runs, canary = beside(study, tmp_path / 'runs', 'teacher'), tmp_path / 'canary'
    payload = payloads(canary)[kind]
    (outputs,) = (runs / 'tiny' / 'teacher' / '0' / 'outputs').glob('*.safetensors')
    outputs.write_bytes(payload)
    assert kdfast('run', 'kd', '--epochs', 1, '--data', images, '--runs', runs).status == 0 and not canary.exists()
    shutil.rmtree(runs / 'tiny' / 'kd,epochs=1')
    key = outputs.name.partition('-')[0]
    bears_its_digest = outputs.with_name(f'{key}-{hashlib.sha256(payload).hexdigest()}.safetensors')
    bears_its_digest.write_bytes(payload)
    assert kdfast('run', 'kd', '--epochs', 1, '--data', images, '--runs', runs).status == 2 and not canary.exists()
    bears_its_digest.unlink()
    checkpoints = runs / 'tiny' / 'kd,epochs=1' / '0' / 'resume'
    checkpoints.mkdir(exist_ok=True)
    (checkpoints / f'01-0000-000003-{"0" * 64}.safetensors').write_bytes(payload)
    assert kdfast('run', 'kd', '--epochs', 1, '--data', images, '--runs', runs).status == 0 and not canary.exists()


BANNED = {'pickle', 'dill', 'marshal', 'shelve', 'yaml'}
PLAIN = ROOT / 'kdfast' / 'data' / 'safe_pickle.py'  # its unpickler creates arrays and nothing else: test_official.py
CALLS = {'load_learner', 'extractall', 'extract', 'SaveModelCallback', 'unpack_archive', 'untar_data'}
WHOLE = {'eval', 'exec', 'os.system'}


@pytest.mark.parametrize('file', [*ROOT.glob('kdfast/**/*.py'), *ROOT.glob('recipes/*.py')], ids=lambda file: file.name)
def test_nothing_that_obeys_a_file_is_used(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import) and file != PLAIN:
            assert not BANNED & {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.module not in BANNED
        if isinstance(node, ast.Call):
            name, on = getattr(node.func, 'attr', getattr(node.func, 'id', '')), ast.unparse(node.func)
            assert name not in CALLS and on not in WHOLE and not on.startswith('pickle.load'), on
            if on == 'torch.load':
                assert any(
                    word.arg == 'weights_only' and getattr(word.value, 'value', None) is True for word in node.keywords
                )
            assert not any(
                word.arg in ('allow_pickle', 'shell') and getattr(word.value, 'value', None) for word in node.keywords
            ), on


ACTING = [
    '<script>alert(1)</script>',
    '"><img src=x onerror=alert(1)>',
    "';alert(1)//",
    '[red]x[/red]',
    '[/x]',
    '=1+1',
    '@SUM(1)',
    '{{7*7}}',
]


@pytest.mark.parametrize('name', ACTING)
def test_a_name_from_the_data_is_shown_and_does_nothing(kdfast, tmp_path, name):
    pairs = [[name, 'b', 3]]
    for recipe in ('teacher', 'baseline'):
        make(
            tmp_path / 'runs',
            recipe,
            0,
            confusion=[[5, 3], [1, 7]],
            classes=[name, 'b'],
            right=[1] * 12 + [0] * 4,
            train_accuracy=0.9,
            best_valid_accuracy=0.8,
            best_epoch=1,
            worst_pairs=pairs,
            train_loss=0.1,
            params=10,
            macs=10,
            epochs=1,
            seconds=1,
            arguments=dict(epochs=1),
        )
    shown = kdfast('confusion', 'baseline', '--against', 'teacher', '--runs', tmp_path / 'runs')
    assert shown.status == 0 and name in shown.out.replace('\n', ''), shown.err
    done = kdfast('report', '--runs', tmp_path / 'runs', '--out', tmp_path / 'r.html')
    page = (tmp_path / 'r.html').read_text()
    assert done.status == 0, done.err
    assert not any(act in page for act in ('<script>alert', '<img src=x', '>49<')) and (name in page or '&' in page)
