"What is not as it was when the run was interrupted is refused and named."

import json
import shutil

import interruptions
import pytest
import torch
from conftest import beside
from interruptions import BOTH, interrupted, same, train

from kdfast.core.errors import KdfastError
from kdfast.runs.recipes import find_recipe
from kdfast.runs.run_dir import RunDir

both = pytest.fixture(scope='module')(interruptions.both)
often = pytest.fixture(autouse=True)(interruptions.often)


def test_other_conditions_are_refused_by_name(study, data, tmp_path, monkeypatch):
    runs, kd = beside(study, tmp_path, 'teacher'), find_recipe('kd')
    interrupted(kd, data, runs, (1, 1, 4), epochs=2)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 7)
    with pytest.raises(KdfastError, match='cannot go on: threads was 1, is 7'):
        train(kd, data, runs, epochs=2)
    assert RunDir(runs / 'tiny' / 'kd,epochs=2' / '0').run['status'] == 'interrupted'


CONDITIONS = dict(
    arguments=dict(epochs=3),
    data_sha256='0' * 64,
    seed=1,
    batch_size=16,
    precision='float64',
    versions=dict(torch='1.0'),
    device='Tesla',
    machine='PDP-11',
    threads=7,
)


@pytest.fixture(scope='module')
def stopped(study, data, tmp_path_factory):
    runs = beside(study, tmp_path_factory.mktemp('stopped'), 'teacher')
    interrupted(find_recipe('kd'), data, runs, (1, 1, 4), epochs=2)
    return runs


@pytest.mark.parametrize('name', CONDITIONS)
def test_whatever_changed_is_refused_and_named(stopped, data, tmp_path, name):
    runs = tmp_path / 'runs'
    shutil.copytree(stopped, runs)
    folder = RunDir(runs / 'tiny' / 'kd,epochs=2' / '0')
    (folder / 'run.json').write_text(json.dumps(folder.run | {name: CONDITIONS[name]}))
    before = sorted(file.name for file in (folder / 'resume').iterdir())
    said = 'it is the record of seed 1, as in a copy' if name == 'seed' else f'cannot go on: {name} was'
    with pytest.raises(KdfastError, match=said):
        train(find_recipe('kd'), data, runs, epochs=2)
    assert sorted(file.name for file in (folder / 'resume').iterdir()) == before


def test_another_version_of_the_recipe_is_refused(stopped, data, tmp_path):
    runs = tmp_path / 'runs'
    shutil.copytree(stopped, runs)
    (runs / 'tiny' / 'kd,epochs=2' / '0' / 'recipe.py').write_text('"Another."')
    with pytest.raises(KdfastError, match='its recipe is another version'):
        train(find_recipe('kd'), data, runs, epochs=2)


def test_a_teacher_that_is_not_as_it_was_written_teaches_nobody(study, data, tmp_path):
    runs = beside(study, tmp_path, 'teacher')
    file = runs / 'tiny' / 'teacher' / '0' / 'weights.safetensors'
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(KdfastError, match='is damaged .weights.safetensors has changed since it was written'):
        train(find_recipe('kd'), data, runs, epochs=2)


def test_a_folder_that_no_run_made_is_left_alone(data, tmp_path):
    folder = tmp_path / 'tiny' / 'baseline,epochs=1' / '0'
    folder.mkdir(parents=True)
    (folder / 'thesis.tex').write_text('years of work')
    with pytest.raises(KdfastError, match='is not the folder of a run'):
        train(find_recipe('baseline'), data, tmp_path, epochs=1)
    (folder / 'run.json').write_text('{"status": "running", "format": 99}')
    with pytest.raises(KdfastError, match='made by a newer kdfast'):
        train(find_recipe('baseline'), data, tmp_path, epochs=1)
    assert (folder / 'thesis.tex').read_text() == 'years of work'


def test_a_teacher_trained_before_or_within_the_run_gives_the_same_bits(data, tmp_path):
    "By the student's run or before it: the student draws the same random numbers"
    (tmp_path / 'both.py').write_text(BOTH.replace("needs('teacher')", "needs('teacher', epochs=1)"))
    both = find_recipe(str(tmp_path / 'both.py'))
    here = train(both, data, tmp_path / 'runs', epochs=1)
    shutil.copytree(tmp_path / 'runs' / 'tiny' / 'teacher,epochs=1', tmp_path / 'before' / 'tiny' / 'teacher,epochs=1')
    assert same(train(both, data, tmp_path / 'before', epochs=1), here)


def test_steps_that_are_not_as_they_were_written_are_refused(study, data, tmp_path):
    runs = beside(study, tmp_path, 'teacher')
    interrupted(find_recipe('kd'), data, runs, (1, 1, 4), epochs=2)
    file = runs / 'tiny' / 'kd,epochs=2' / '0' / 'steps.csv'
    file.write_text(file.read_text().replace('1,1,3,', '1,1,7,'))
    with pytest.raises(KdfastError, match='steps.csv has changed since this run wrote it'):
        train(find_recipe('kd'), data, runs, epochs=2)
